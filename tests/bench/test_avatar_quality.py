from __future__ import annotations

import numpy as np
import pytest

from bench.avatar_quality import FARTHEST, correlate, falls_short, shuffle


def test_a_mouth_that_comes_late_agrees_at_its_lag():
    truth = np.random.default_rng(0).random(60)
    late = np.concatenate([[0.5, 0.5], truth[:-2]])
    by_lag = {lag: correlate(late, truth, lag) for lag in range(-FARTHEST, FARTHEST + 1)}
    assert max(by_lag, key=lambda lag: by_lag[lag]) == 2
    assert by_lag[2] == pytest.approx(1)
    assert correlate(late[:50], truth, 2) == pytest.approx(1)  # over what both have


def test_a_mouth_that_never_moves_agrees_with_nothing():
    assert correlate(np.zeros(20), np.arange(20.0)) == 0
    assert correlate(-np.arange(20.0), np.arange(20.0)) == pytest.approx(-1)


def test_shuffled_sound_has_the_same_samples_elsewhere():
    samples = np.arange(16_001, dtype=np.int16)
    mixed = shuffle(samples, np.random.default_rng(0))
    assert sorted(mixed) == samples.tolist()
    assert not np.array_equal(mixed, samples)
    assert np.array_equal(np.unique(np.diff(mixed.astype(int)) == 1, return_counts=True)[1] > 0, [True, True])


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("drawn", "correlation", 0.4),
        ("filmed", "shuffled", 0.7),
        ("filmed", "lag_frames", -2),
        ("silence", "noise", 0.5),
    ],
)
def test_what_falls_short_is_told(kind: str, key: str, value: float):
    good = {"correlation": 0.7, "shuffled": 0.1, "lag_frames": 1}
    figures = {"drawn": dict(good), "filmed": dict(good), "silence": {"zeros": 0.02, "noise": 0.1}}
    assert not falls_short(figures)
    figures[kind][key] = value
    assert falls_short(figures)
