from dataclasses import replace

import numpy as np
import pytest

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.decode import SYMBOLS, decode_greedy, words_of
from inference.lip_reading.grammar import read_grammar
from inference.lip_reading.live_words import LONGEST_HELD, SentenceStream, WordStream
from inference.lip_reading.preprocess import WINDOW, Window
from inference.lip_reading.windows import HOP, stitch

SENTENCE = "--BIN-  -BLUE--- AT- F- TWO--  NOW-----  "
PAUSES = ("-" * 7, " " * 3, "-" * 90, "")


def logits_of(n_frames: int, text: str = SENTENCE, sure: float = 6) -> np.ndarray:
    text = (text * (n_frames // len(text) + 1))[:n_frames]
    logits = np.random.default_rng(0).normal(0, 0.5, (n_frames, 28)).astype(np.float32)
    labels = [0 if c == "-" else SYMBOLS.index(c) + 1 for c in text]
    logits[np.arange(n_frames), labels] += sure
    return logits


def windows_over(logits: np.ndarray):
    n_frames = len(logits)
    starts = list(range(0, n_frames - WINDOW + 1, HOP)) or [0]
    if starts[-1] + WINDOW < n_frames:
        starts.append(n_frames - WINDOW)
    empty = np.zeros((0,), np.uint8)
    for start in starts:
        rows = logits[start : start + WINDOW]
        padded = np.zeros((WINDOW, 28), np.float32)
        padded[: len(rows)] = rows
        yield Window(start, len(rows), empty, empty.astype(np.float32), (0,) * len(rows)), padded


@pytest.mark.parametrize("n_frames", [40, 75, 76, 150, 333, 1000])
def test_words_told_on_the_way_are_those_of_the_whole(n_frames: int):
    logits = logits_of(n_frames)
    told = []
    stitched = stitch(windows_over(logits), WordStream(told.extend, 25.0).hear)
    whole = words_of(decode_greedy(stitched.logits.argmax(axis=1)), stitched.logits, 25.0)
    assert told == whole[: len(told)]
    if n_frames > 2 * WINDOW:
        assert len(told) > len(whole) - 12  # all but what the last window could still change


@pytest.mark.parametrize("n_frames", [40, 75, 76, 150, 333, 1000])
def test_sentences_told_on_the_way_are_those_of_the_whole(n_frames: int):
    logits = logits_of(n_frames, "".join(SENTENCE + pause for pause in PAUSES))
    told = []
    stitched = stitch(windows_over(logits), SentenceStream(told.extend, 25.0, Calibration()).hear)
    whole = read_grammar(stitched.logits, 25.0, 1, Calibration()).words
    assert told == list(whole[: len(told)])
    assert len(told) % 6 == 0
    if n_frames > 4 * WINDOW:
        assert len(told) >= len(whole) - 18  # a sentence is told when the next has begun in frames that stay


@pytest.mark.parametrize("sure", [6.0, 12.0])
def test_a_sentence_is_told_in_the_pause_after_it_and_silence_is_not_kept(sure: float):
    logits = logits_of(1500, SENTENCE + " " + "-" * 1500, sure)
    told = []
    stream = SentenceStream(told.extend, 25.0, Calibration())
    held = []

    def hear(rows: np.ndarray, start: int) -> None:
        stream.hear(rows, start)
        held.append(len(stream._rows))

    stitched = stitch(windows_over(logits), hear)
    assert told == list(read_grammar(stitched.logits, 25.0, 1, Calibration()).words)
    assert len(told) == 6
    assert max(held) < LONGEST_HELD + 2 * WINDOW


def test_words_in_a_long_hole_are_not_told():
    """Pictures are held there; what the network makes of them is made silent."""
    logits = logits_of(300)
    holes = [0] * 100 + [60] * 60 + [0] * 140
    told, told_in_sentences = [], []
    for stream in (WordStream(told.extend, 25.0), SentenceStream(told_in_sentences.extend, 25.0, Calibration())):
        windows = (
            (replace(window, holes=tuple(holes[window.start : window.start + window.n_frames])), rows)
            for window, rows in windows_over(logits)
        )
        stitched = stitch(windows, stream.hear)
    assert told == words_of(decode_greedy(stitched.logits.argmax(axis=1)), stitched.logits, 25.0)[: len(told)]
    assert told_in_sentences == list(
        read_grammar(stitched.logits, 25.0, 1, Calibration()).words[: len(told_in_sentences)]
    )
    assert len(told) > 12
    assert len(told_in_sentences) >= 6
