from __future__ import annotations

import pytest

from bench.avatar_quality import misses_target


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
