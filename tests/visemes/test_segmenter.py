from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from inference.visemes.segmenter import LAG_STEPS, MIN_STEPS, PhonemeSegmenter


def decide(classes: list[int], certainty: float = 0.9, n_classes: int = 3) -> list[int]:
    """Return the decisions on steps whose posteriors favour these classes."""
    segmenter, decided = PhonemeSegmenter(n_classes), list[int]()
    for t, one in enumerate(classes):
        posteriors = np.full(n_classes, (1 - certainty) / (n_classes - 1), np.float32)
        posteriors[one] = certainty
        decided += segmenter.push(posteriors)
        assert len(decided) == max(t + 1 - LAG_STEPS, 0)
    return decided + segmenter.finish()


def test_clear_steps_stay_as_they_are():
    classes = [0] * 5 + [1] * 4 + [2] * 20 + [0] * 3
    assert decide(classes) == classes


def test_a_single_deviating_step_is_smoothed():
    assert decide([0] * 10 + [1] + [0] * 10, certainty=0.6) == [0] * 21


def test_no_segment_inside_is_shorter_than_the_minimum():
    rng = np.random.default_rng(1)
    found = decide(rng.integers(0, 3, 400).tolist(), certainty=0.99)
    lengths = [len(list(steps)) for _, steps in groupby(found)]
    assert len(lengths) > 20
    assert min(lengths[1:-1]) >= MIN_STEPS


@pytest.mark.parametrize("n", [0, 1, MIN_STEPS - 1, LAG_STEPS, LAG_STEPS + 1])
def test_short_audio_is_decided_in_full(n: int):
    assert decide([1] * n) == [1] * n


def test_impossible_posteriors_do_not_break_the_sums():
    segmenter = PhonemeSegmenter(2)
    for _ in range(3000):
        segmenter.push(np.array([1, 0], np.float32))
    assert segmenter.finish() == [0] * LAG_STEPS
