"""Videos of several sentences, with a network that returns the class that the test wrote into each frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from inference.lip_reading import long_video
from inference.lip_reading.calibration import Calibration
from inference.lip_reading.grammar_decoder import join_spans
from inference.lip_reading.greedy_decoder import SYMBOLS, DecodedText, Logits
from inference.lip_reading.long_video import COARSE_ENDS, MAX_BUFFERED_FRAMES, decode_by_sentence, score_one_sentence
from inference.lip_reading.preprocess import WINDOW_FRAMES, MouthCrop
from inference.lip_reading.staged_network import StagedNetwork
from inference.lip_reading.windows import SILENT_GAP

FPS = 25.0
UNCALIBRATED = Calibration()
ONE = "B-I-N-- BL-U-E-- A-T- F-- T-W-O--- N-O-W"


CROP = np.zeros((64, 128, 3), np.uint8)


def mouths_of(text: str, gap_length: int = 0, shot: int = 0) -> list[MouthCrop]:
    """Return a mouth for each character; '-' is one at rest."""
    labels = [0 if c == "-" else SYMBOLS.index(c) + 1 for c in text]
    return [MouthCrop(CROP, np.full((20, 2), label / 28, np.float32), gap_length, shot) for label in labels]


class FrameLabels:
    """Returns the class written into each frame's lips, with high confidence; counts its windows.

    Logits of estimated features, which are 1 if they are of held frames, are slightly less confident.
    """

    def __init__(self) -> None:
        self.n_calls = self.n_windows = self.n_estimated = 0
        self.staged = StagedNetwork(
            convolutions=(lambda x: [x[..., :1, :1]], lambda x: [x], lambda x: [x[:, 0, :, 0]]),
            project=lambda x: [x],
            recur=self,
            hold=lambda x: [np.ones((*x.shape[:3:2], 1), np.float32)],
        )

    def __call__(self, features: np.ndarray, lips: np.ndarray) -> list[Logits]:
        assert features.shape == (*lips.shape[:2], 1)
        is_estimate = features.any(axis=(1, 2))
        self.n_calls += 1
        self.n_windows += len(lips)
        self.n_estimated += int(is_estimate.sum())
        labels = np.rint(lips[:, :, 0, 0] * 28).astype(int)
        noise = np.random.default_rng(0).normal(0, 0.5, (*labels.shape[1:], 28))
        height = np.where(is_estimate, 7.98, 8)[:, None, None]
        return [(noise + height * np.eye(28)[labels]).astype(np.float32)]


def read(mouths: list[MouthCrop]) -> DecodedText:
    return join_spans(list(decode_by_sentence(mouths, FrameLabels().staged, 2, UNCALIBRATED)), 2)


def test_one_sentence_scores_above_more_or_less_than_one():
    texts = [f"--{ONE}--", f"--{ONE}-- LA-Y- RE", f"--{ONE[:-10]}--"]
    lips = [np.stack([m.lips for m in mouths_of(text.ljust(WINDOW_FRAMES, "-"))]) for text in texts]
    features = np.zeros((len(texts), WINDOW_FRAMES, 1))
    whole, more, less = score_one_sentence(FrameLabels()(features, np.stack(lips))[0])
    assert whole > more + 5
    assert whole > less + 5


def test_estimates_are_never_the_result():
    """Estimated or not, the same window of a sentence is chosen, and its own logits are decoded."""
    mouths = mouths_of(f"{ONE}---------" * 3)
    estimating, computing = FrameLabels(), FrameLabels()
    object.__setattr__(computing.staged, "hold", lambda x: [np.zeros((*x.shape[:3:2], 1), np.float32)])
    found, expected = (list(decode_by_sentence(mouths, one.staged, 2, UNCALIBRATED)) for one in (estimating, computing))
    assert found == expected
    assert estimating.n_estimated > 0 == computing.n_estimated


def test_unclear_speech_is_decoded_up_to_every_end():
    """If no end makes one sentence, estimates may prefer another end than the exact scores do."""

    def count_exact(text: str) -> int:
        network = FrameLabels()
        list(decode_by_sentence(mouths_of(f"{text:-^{WINDOW_FRAMES}}"), network.staged, 1, UNCALIBRATED))
        return network.n_windows - network.n_estimated

    assert count_exact("H-E-L-L-O-- W-O-R-L-D--- H-O-W- A-R-E--- Y-O-U") > len(COARSE_ENDS)
    assert count_exact(ONE) < len(COARSE_ENDS)


def test_a_clear_sentence_is_decoded_with_the_ends_of_the_next():
    """One call estimates ends and decodes the sentence before; the next ones estimate ends that may be better.

    Without a pause an estimate is not enough to choose an end: the sentence is decoded first.
    """

    def count_calls(pause: int) -> int:
        network = FrameLabels()
        list(decode_by_sentence(mouths_of((ONE + "-" * pause) * 10), network.staged, 1, UNCALIBRATED))
        return network.n_calls

    assert count_calls(20) < 3 * 10
    assert count_calls(2) >= 3 * 10


def test_the_ends_of_slow_speech_are_estimated_in_the_first_call():
    """After one long sentence the first call has the ends up to as long a one, so that it is mostly the only one."""
    slow = ONE.replace("F--", "F--" + "-" * 24)

    def count_calls(n_sentences: int) -> int:
        network = FrameLabels()
        list(decode_by_sentence(mouths_of((slow + "-" * 9) * n_sentences), network.staged, 1, UNCALIBRATED))
        return network.n_calls

    assert count_calls(8) - count_calls(4) <= 2 * 4


@pytest.mark.parametrize("stretched", [0, 10, 20, 28])
@pytest.mark.parametrize("pause", [4, 16, 40])
def test_few_ends_give_the_same_as_all(monkeypatch: pytest.MonkeyPatch, stretched: int, pause: int):
    """Sentences that end before, in and behind the ends that are estimated first."""
    one = ONE.replace("F--", "F--" + "-" * stretched)
    mouths = mouths_of("---" + ("-" * pause).join([one, ONE.replace("-", ""), one]) + "-" * 80)
    few, every = FrameLabels(), FrameLabels()
    found = list(decode_by_sentence(mouths, few.staged, 2, UNCALIBRATED))
    for threshold in ("CLEAR_ABOVE", "DOUBTFUL_BELOW", "DOUBTFUL_MARGIN"):
        monkeypatch.setattr(long_video, threshold, math.inf)
    assert found == list(decode_by_sentence(mouths, every.staged, 2, UNCALIBRATED))
    assert few.n_windows < every.n_windows


@pytest.mark.parametrize("pause", [3, 12, 45])
def test_sentences_are_decoded_with_any_pause(pause: int):
    frames = "-" * 5 + ("-" * pause).join([ONE, ONE, ONE, ONE]) + "-" * 7
    reading = read(mouths_of(frames))
    assert reading.text == " ".join(["BIN BLUE AT F TWO NOW"] * 4)
    assert len(reading.alternatives) == 2
    times = [(word.start, word.end) for word in reading.words]
    assert all(start < end for start, end in times)
    assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(times))
    for i in range(4):
        start_s = (5 + i * (len(ONE) + pause)) / FPS
        assert reading.words[6 * i].start == pytest.approx(start_s, abs=0.3)
    assert reading.confidence > 0.8


def test_silence_has_no_words_and_does_not_shift_what_follows():
    reading = read(mouths_of("-" * 200 + ONE + "-" * 200 + ONE + "-" * 100))
    assert reading.text == " ".join(["BIN BLUE AT F TWO NOW"] * 2)
    starts = [reading.words[i].start for i in (0, 6)]
    assert starts == pytest.approx([200 / FPS, (400 + len(ONE)) / FPS], abs=0.3)
    assert read(mouths_of("-" * 300)).words == ()


def test_no_word_is_decoded_in_a_long_gap():
    gap = mouths_of(ONE, SILENT_GAP)
    reading = read([*mouths_of(f"--{ONE}--"), *gap, *mouths_of(f"--{ONE}--")])
    assert reading.text == " ".join(["BIN BLUE AT F TWO NOW"] * 2)
    assert reading.words[6].start == pytest.approx((len(ONE) * 2 + 6) / FPS, abs=0.3)


def test_a_short_gap_does_not_split_a_sentence():
    assert read([*mouths_of(f"--{ONE[:20]}"), *mouths_of(f"{ONE[20:]}---", SILENT_GAP - 1)] * 2).words


def test_sentences_of_two_shots_are_read_apart_and_in_time():
    """Each shot begins and ends within a sentence; joined, they would be one of neither."""
    other = "S-E-T-- RE-D-- BY-- G-- N-I-N-E-- SO-ON"
    frames = [*mouths_of(f"---{ONE}"), *mouths_of(f"{other}---", shot=1), *mouths_of(f"--{ONE}--", shot=2)]
    reading = read(frames)
    assert reading.text == "BIN BLUE AT F TWO NOW SET RED BY G NINE SOON BIN BLUE AT F TWO NOW"
    cut_s = (3 + len(ONE)) / FPS
    assert reading.words[5].end <= cut_s + 1 / FPS
    assert reading.words[6].start == pytest.approx(cut_s, abs=0.1)
    assert reading.words[12].start == pytest.approx((3 + len(ONE) + len(other) + 3 + 2) / FPS, abs=0.3)


def test_words_outside_the_grammar_lower_the_confidence():
    alone = read(mouths_of(f"---{ONE}---" + "-" * 90))
    beside = read(mouths_of(f"---{ONE}---" + "-" * 45 + " DO-G-- C-AT-- FI-SH " + "-" * 60))
    assert beside.text == alone.text
    assert beside.confidence < 0.8 * alone.confidence


def test_few_frames_are_buffered_and_the_work_grows_with_the_length():
    """Frames are decoded as they arrive, and five times as many take five times as many windows."""
    windows = []
    for n_sentences in (4, 20):
        n_given, labels = 0, FrameLabels()

        def give(n_sentences: int = n_sentences) -> Iterator[MouthCrop]:
            nonlocal n_given
            for mouth in mouths_of(f"{ONE}---------" * n_sentences):
                n_given += 1
                yield mouth

        for i, _ in enumerate(decode_by_sentence(give(), labels.staged, 1, UNCALIBRATED)):
            # A sentence may be decoded with the ends of the next one.
            assert n_given <= (i + 1) * (len(ONE) + 9 + 3) + MAX_BUFFERED_FRAMES + 1
        windows.append(labels.n_windows)
    assert windows[1] == pytest.approx(5 * windows[0], rel=0.25)
    assert MAX_BUFFERED_FRAMES < 2 * WINDOW_FRAMES
