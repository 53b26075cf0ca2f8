"""What `bench.webrtc` concludes from a browser's counters."""

from __future__ import annotations

from typing import Any

import pytest

from bench import webrtc
from bench.webrtc import TIMESTAMPS, is_over_a_limit, summarize_interrupts, summarize_session

STATS: list[dict[str, Any]] = [{"audio": 1000.0, "video": 990.0, "lost": 0, "dropped": 0}] * 4


def summarize(*calls: tuple[int, int]) -> dict[str, Any]:
    """Summarize calls of the page. calls: number of the frame, and how many frames were presented until then."""
    start = TIMESTAMPS - 3 * 3600  # the timestamps start again at the fourth frame
    shown = [(40.0 * frame, (start + 3600 * frame) % TIMESTAMPS, presented) for frame, presented in calls]
    found = summarize_session({"first": 300.0, "shown": shown}, STATS, load=0.0)
    rounds = {"last_old_frame_ms": {"median": 0.0, "max": 0.0}, "shut_mouth_ms": {"median": 9.0, "max": 9.0}}
    return found | {"interrupt": {"unmeasured": 0} | rounds}


def test_a_frame_without_a_call_is_not_lost():
    found = summarize(*((n, n) for n in range(10)), *((n, n) for n in range(12, 20)))
    assert (found["lost_frames"], found["presented_twice"], found["missed_callbacks"]) == (0, 0, 2)
    assert (found["fps"], found["session_fps"]) == (25.0, 25.0)
    assert not is_over_a_limit(found)


def test_a_frame_that_is_presented_twice_hides_no_lost_one():
    twice = [(n, n + (n > 4)) for n in range(10)]
    found = summarize(*twice, (11, 11), (12, 12))  # frame 10 is lost
    assert (found["lost_frames"], found["presented_twice"], found["missed_callbacks"]) == (1, 1, 0)
    assert found["fps"] == pytest.approx(25 * 11 / 12, abs=0.01)
    assert is_over_a_limit(found)
    again = summarize((0, 0), (1, 1), (1, 2), (2, 3))  # with a call for each time
    assert (again["lost_frames"], again["presented_twice"], again["missed_callbacks"]) == (0, 1, 0)


def test_a_round_that_cannot_be_measured_fails(monkeypatch: pytest.MonkeyPatch):
    def time_round(found: dict[str, Any], _mouths: Any) -> tuple[float, float, float]:
        if not found:
            raise ValueError("the mouth did not shut")
        return 10.0, 20.0, 30.0

    monkeypatch.setattr(webrtc, "time_round", time_round)
    mouths: Any = None
    good = summarize((0, 0), (1, 1)) | {"interrupt": summarize_interrupts([{"sent": 0}], mouths)}
    assert not is_over_a_limit(good)
    mixed = summarize_interrupts([{"sent": 0}, {}], mouths)
    assert mixed is not None
    assert (mixed["rounds"], mixed["unmeasured"]) == (1, 1)
    assert is_over_a_limit(good | {"interrupt": mixed})
