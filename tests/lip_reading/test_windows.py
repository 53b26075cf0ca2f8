import numpy as np
import pytest

from inference.lip_reading.greedy_decoder import BLANK, SYMBOLS, read_greedy
from inference.lip_reading.preprocess import WINDOW_FRAMES, MouthCrop, MouthWindow, cut_windows
from inference.lip_reading.windows import SILENT_GAP, WINDOW_HOP, run_windows, stitch, to_network_input


def window(start: int, n_frames: int = WINDOW_FRAMES, gap_lengths=None) -> MouthWindow:
    return MouthWindow(
        start,
        n_frames,
        np.zeros((WINDOW_FRAMES, 64, 128, 3), np.uint8),
        np.zeros((WINDOW_FRAMES, 20, 2), np.float32),
        tuple(gap_lengths or [0] * n_frames),
    )


def constant(value: float) -> np.ndarray:
    return np.full((WINDOW_FRAMES, 28), value, np.float32)


def test_one_window_passes_unchanged_without_its_padding():
    logits = np.random.default_rng(0).normal(size=(WINDOW_FRAMES, 28)).astype(np.float32)
    assert np.array_equal(stitch([(window(0, 40), logits)]).logits, logits[:40])


def test_windows_are_joined_in_the_middle_of_their_overlap():
    rows = stitch([(window(0), constant(1)), (window(60), constant(2))]).logits[:, 0]
    assert len(rows) == 135
    assert rows[:67].tolist() == [1] * 67
    assert rows[67:].tolist() == [2] * 68


def test_a_space_parts_the_words_of_two_shots():
    letters = np.zeros((WINDOW_FRAMES, 28), np.float32)
    letters[:, SYMBOLS.index("A") + 1] = 9
    seen: list[tuple[int, int]] = []
    stitched = stitch(
        [(window(0, 40), letters), (window(40), letters), (window(100), letters)],
        lambda rows, start: seen.append((len(rows), start)),
    )
    assert len(stitched.logits) == 175
    assert read_greedy(stitched.logits, 25.0).text == "A A"
    assert [word.start for word in read_greedy(stitched.logits, 25.0).words] == [0, 41 / 25]
    assert seen == [(40, 0), (75, 40), (68, 107)]


@pytest.mark.parametrize("n_frames", [75, 76, 100, 134, 135, 136, 400])
def test_windows_do_not_change_a_network_without_context(n_frames: int):
    crop = np.zeros((64, 128, 3), np.uint8)
    mouths = [MouthCrop(crop, np.full((20, 2), i, np.float32)) for i in range(n_frames)]

    def network(video, lips):
        return [np.repeat(lips[:, :, 0, :1], 28, axis=2)]

    stitched = stitch(run_windows(cut_windows(mouths, WINDOW_HOP), network, batch_size=3))
    assert stitched.logits[:, 5].tolist() == list(range(n_frames))
    assert len(stitched.gap_lengths) == n_frames


def test_at_most_one_batch_of_windows_is_held():
    drawn, calls = [], []

    def windows():
        for i in range(7):
            drawn.append(i)
            yield window(i * WINDOW_HOP)

    def network(video, lips):
        calls.append((len(drawn), len(video)))
        return [np.zeros((len(video), WINDOW_FRAMES, 28), np.float32)]

    assert len(list(run_windows(windows(), network, batch_size=3))) == 7
    assert calls == [(3, 3), (6, 3), (7, 1)]


def test_the_network_input_is_float_and_channels_first():
    video = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 128, 3), np.uint8)
    made = to_network_input(video)
    assert made.shape == (2, 3, 3, 64, 128)
    assert made.dtype == np.float32
    assert made[1, 2, 0, 5, 6] == np.float32(video[1, 0, 5, 6, 2]) / np.float32(255)


def test_no_word_is_decoded_in_a_long_gap():
    gap_lengths = [0] * 20 + [SILENT_GAP] * SILENT_GAP + [0] * 5 + [3] * 3 + [0] * 22
    logits = np.zeros((WINDOW_FRAMES, 28), np.float32)
    logits[:, 4] = 9
    best = stitch([(window(0, WINDOW_FRAMES, gap_lengths), logits)]).logits.argmax(axis=1)
    assert best[20 : 20 + SILENT_GAP].tolist() == [BLANK] * SILENT_GAP
    assert set(best[:20]) | set(best[20 + SILENT_GAP :]) == {4}
