from dataclasses import replace

import numpy as np
import pytest

from inference.lip_reading.greedy_decoder import SYMBOLS, decode_greedy, words_with_times
from inference.lip_reading.partial_words import WordStream
from inference.lip_reading.preprocess import WINDOW_FRAMES, MouthWindow
from inference.lip_reading.windows import WINDOW_HOP, stitch

SENTENCE = "--BIN-  -BLUE--- AT- F- TWO--  NOW-----  "


def logits_of(n_frames: int, text: str = SENTENCE, sure: float = 6) -> np.ndarray:
    text = (text * (n_frames // len(text) + 1))[:n_frames]
    logits = np.random.default_rng(0).normal(0, 0.5, (n_frames, 28)).astype(np.float32)
    labels = [0 if c == "-" else SYMBOLS.index(c) + 1 for c in text]
    logits[np.arange(n_frames), labels] += sure
    return logits


def windows_over(logits: np.ndarray):
    n_frames = len(logits)
    starts = list(range(0, n_frames - WINDOW_FRAMES + 1, WINDOW_HOP)) or [0]
    if starts[-1] + WINDOW_FRAMES < n_frames:
        starts.append(n_frames - WINDOW_FRAMES)
    empty = np.zeros((0,), np.uint8)
    for start in starts:
        rows = logits[start : start + WINDOW_FRAMES]
        padded = np.zeros((WINDOW_FRAMES, 28), np.float32)
        padded[: len(rows)] = rows
        yield MouthWindow(start, len(rows), empty, empty.astype(np.float32), (0,) * len(rows)), padded


@pytest.mark.parametrize("n_frames", [40, 75, 76, 150, 333, 1000])
def test_emitted_words_equal_those_of_the_whole(n_frames: int):
    logits = logits_of(n_frames)
    emitted = []
    stitched = stitch(windows_over(logits), WordStream(emitted.extend, 25.0).add_rows)
    whole = words_with_times(decode_greedy(stitched.logits.argmax(axis=1)), stitched.logits, 25.0)
    assert emitted == whole[: len(emitted)]
    if n_frames > 2 * WINDOW_FRAMES:
        assert len(emitted) > len(whole) - 12  # all but those that the last window may still change


def test_words_in_a_long_gap_are_not_emitted():
    """Crops are repeated there; what the network decodes from them is silenced."""
    logits = logits_of(300)
    gap_lengths = [0] * 100 + [60] * 60 + [0] * 140
    emitted = []
    windows = (
        (replace(window, gap_lengths=tuple(gap_lengths[window.start : window.start + window.n_frames])), rows)
        for window, rows in windows_over(logits)
    )
    stitched = stitch(windows, WordStream(emitted.extend, 25.0).add_rows)
    assert (
        emitted
        == words_with_times(decode_greedy(stitched.logits.argmax(axis=1)), stitched.logits, 25.0)[: len(emitted)]
    )
    assert len(emitted) > 12
