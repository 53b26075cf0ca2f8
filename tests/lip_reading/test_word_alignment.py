import numpy as np
import pytest

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.greedy_decoder import FIRST_SYMBOL, SYMBOLS, log_softmax
from inference.lip_reading.word_alignment import (
    WORD_DURATION_S,
    enforce_order,
    estimate_word_times,
    find_word_boundaries,
)

FPS = 25.0
WORDS = ["BIN", "BLUE", "AT", "F", "TWO", "NOW"]
FRAMES = "-----BIN-- BLUE- AT- F--- TWO-- NOW-----"
PRECISE = (0.001,) * 7
IMPRECISE = (1000.0,) * 7


def log_probabilities() -> np.ndarray:
    logits = np.zeros((len(FRAMES), 28))
    labels = [0 if c == "-" else SYMBOLS.index(c) + FIRST_SYMBOL for c in FRAMES]
    logits[np.arange(len(FRAMES)), labels] = 20.0
    return log_softmax(logits)


def starts() -> list[float]:
    return [FRAMES.index(word) / FPS for word in (*WORDS[:3], "F-", *WORDS[4:])]


def test_the_alignment_is_of_first_characters():
    end = (FRAMES.index("NOW") + 3) / FPS
    assert find_word_boundaries(log_probabilities(), WORDS, FPS).tolist() == pytest.approx([*starts(), end])


def test_a_precise_alignment_is_followed_and_its_shift_removed():
    shifted = Calibration(shift_s=(0.04,) * 7, spread_s=PRECISE)
    found = estimate_word_times(log_probabilities(), WORDS, FPS, shifted)
    assert [start for start, _ in found] == pytest.approx([one - 0.04 for one in starts()], abs=0.02)


def test_an_imprecise_alignment_leaves_word_durations_of_grid():
    found = estimate_word_times(log_probabilities(), WORDS, FPS, Calibration(spread_s=IMPRECISE))
    length_s = len(FRAMES) / FPS
    lengths = [end - start for start, end in found]
    assert sum(WORD_DURATION_S) > length_s  # so the last words are squeezed
    assert lengths[:4] == pytest.approx(WORD_DURATION_S[:4], abs=0.1)
    assert found[-1][1] == pytest.approx(length_s)


def test_one_word_begins_where_the_one_before_ends():
    found = estimate_word_times(log_probabilities(), WORDS, FPS, Calibration())
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]


@pytest.mark.parametrize(
    ("boundaries", "kept"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([-0.3, 0.5, 0.9], [0.0, 0.5, 0.9]),
        ([0.5, 0.2, 0.9], [0.5, 0.6, 0.9]),
        ([0.5, 0.7, 3.0], [0.5, 0.7, 1.0]),
        ([2.0, 2.0, 3.0], [0.8, 0.9, 1.0]),
    ],
)
def test_boundaries_stay_in_order_and_inside(boundaries: list[float], kept: list[float]):
    assert enforce_order(np.array(boundaries), 1.0, 0.1).tolist() == pytest.approx(kept)
