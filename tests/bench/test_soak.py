from __future__ import annotations

import os
from dataclasses import replace

import pytest

from bench.soak import Minute, ReceivedFrames, anonymous_mib, is_over_a_limit, summarize
from container.live.frame_messages import PATCH, FrameMessage

FRAME = FrameMessage(PATCH, True, 0, 0, 0, 0, 0, 1, 1, b"", bytes(1280))


def receive(n_frames: int, ms_per_frame: float) -> ReceivedFrames:
    received = ReceivedFrames()
    for i in range(n_frames):
        received.add(replace(FRAME, frame=i, pts_ms=i * 40), 5 + i * ms_per_frame / 1000)
    return received


@pytest.mark.parametrize(("ms_per_frame", "drift_ms", "is_over"), [(40.0, 0.0, 0), (40.04, 60.0, 1), (39.96, -60.0, 1)])
def test_a_session_that_is_not_on_the_clock_drifts(ms_per_frame: float, drift_ms: float, is_over: bool):
    results = summarize(receive(3000, ms_per_frame), [Minute(0, 100), Minute(1500, 120), Minute(3000, 121)])
    assert results["drift_ms"] == pytest.approx(drift_ms, abs=0.2)
    assert results["memory_mib"] == {"start": 100, "settled": 120, "end": 121, "growth": 1}
    assert is_over_a_limit(results) == is_over


def test_memory_that_grows_exceeds_the_limit():
    results = summarize(receive(3000, 40.0), [Minute(0, 100), Minute(1500, 120), Minute(3000, 137)])
    assert is_over_a_limit(results)


def test_missing_frames_and_their_audio_count():
    received = ReceivedFrames()
    received.add(FRAME, 0.0)
    received.add(replace(FRAME, frame=3, pts_ms=120, pcm=bytes(3 * 1280)), 0.1)  # the audio of dropped frames comes
    assert (received.n_missing, received.n_interrupted, received.max_audio_ms) == (2, 0, 0)
    received.add(replace(FRAME, frame=5, pts_ms=200, generation=1), 0.2)  # an interrupt drops a frame and its audio
    assert (received.n_missing, received.n_interrupted, received.max_audio_ms) == (3, 1, 0)
    received.add(replace(FRAME, frame=7, pts_ms=280, generation=1), 0.3)
    assert (received.n_missing, received.max_audio_ms) == (4, 40)
    with pytest.raises(ValueError, match="frame 7 came again or too late; expected 8"):
        received.add(replace(FRAME, frame=7, pts_ms=280, generation=1), 0.3)


def test_the_memory_of_a_process():
    assert 1 < anonymous_mib(os.getpid()) < 100_000
