from __future__ import annotations

import numpy as np
import pytest

from bench.avatar_quality import LabelledSpeech, measure_first_frame, measure_speech, misses_target
from inference.avatar import AvatarPackage


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("drawn", "correlation", 0.4),
        ("filmed", "shuffled", 0.7),
        ("filmed", "lag_frames", -2),
        ("silence", "noise", 0.5),
    ],
)
def test_a_figure_outside_its_limit_is_a_failure(kind: str, key: str, value: float):
    good = {"correlation": 0.7, "shuffled": 0.1, "lag_frames": 1}
    figures = {"drawn": dict(good), "filmed": dict(good), "silence": {"zeros": 0.02, "noise": 0.1}}
    assert not misses_target(figures)
    figures[kind][key] = value
    assert misses_target(figures)


class StubEvaluator:
    """Generates the openings that the first samples of an utterance say."""

    def __init__(self, package: object = None) -> None:
        self.package = package

    def generate_frames(self, samples: np.ndarray) -> list[float]:
        return [float(value) for value in samples[::640]]

    def measure_openings(self, frames: list[float]) -> np.ndarray:
        return np.asarray(frames, float)

    def generate_openings(self, samples: np.ndarray) -> np.ndarray:
        return self.measure_openings(self.generate_frames(samples))


def test_figures_are_also_given_for_each_speaker():
    rising, falling = np.repeat(np.arange(20), 640).astype(np.int16), np.repeat(np.arange(20)[::-1], 640)
    speech = [
        LabelledSpeech(rising, np.arange(20.0), speaker="a"),
        LabelledSpeech(falling.astype(np.int16), np.arange(20.0), speaker="b"),
    ]
    figures, _, _ = measure_speech(StubEvaluator(), speech)
    assert figures["by_speaker"] == {"a": 1.0, "b": -1.0}
    assert "bilabials_shut" not in figures


def test_lips_that_shut_on_a_bilabial_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.avatar_quality.measure_rest", lambda _: 1.0)
    opening = np.full(20, 10.0)
    opening[10] = 1.0
    samples = np.repeat(opening, 640).astype(np.int16)
    speech = [LabelledSpeech(samples, opening, middles_s=(0.4, 0.7))]
    figures, _, _ = measure_speech(StubEvaluator(), speech)
    assert figures["bilabials_shut"] == [0.5, 2]


def test_the_audio_before_the_first_frame_is_measured(avatar_package: AvatarPackage):
    """By hand: window 6 starts at column 19.2, rounded down, and ends 15 columns of 12.5 ms and 25 ms after that."""
    assert measure_first_frame(avatar_package, np.ones(16_000, np.int16)) == 450
