from __future__ import annotations

import asyncio

import numpy as np
import pytest

from container.live.frame_clock import FPS, FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.session_options import SessionOptions
from container.live.webrtc.media_session import FRAMES_PER_LEAD, MAX_LEAD, MediaFrame, MediaSession
from inference.avatar import AvatarPackage


def test_an_interrupt_ends_the_wait_for_a_later_frame(avatar_package: AvatarPackage):
    """Frames up to 105 are planned before they are due; the interrupt takes those back that were not played."""

    async def go() -> None:
        now_s, n_sleeps = 4.0, 0

        async def sleep(seconds: float) -> None:
            nonlocal now_s, n_sleeps
            now_s, n_sleeps = now_s + max(seconds, 1e-6), n_sleeps + 1  # less would vanish in the rounding
            if n_sleeps == 1:
                session._n_frames = 101

        clock = FrameClock(lambda: now_s, sleep)
        now_s = 8.0  # frame 100 is due
        session = MediaSession(avatar_package, FrameEncoder(avatar_package), SessionOptions(), asyncio.to_thread, clock)
        session._n_frames = 106
        await session._wait_for_next_frame()
        assert round(clock.lateness_s(101), 3) == 0

    asyncio.run(go())


class Spoken(Exception):
    """Ends a session that is tested."""


class RecordingPlayer:
    """Records how many frames early each frame of speech was planned. Ends the session after so many."""

    def __init__(self, clock: FrameClock, n_frames: int) -> None:
        self.leads: list[float] = []
        self._clock, self._n_frames = clock, n_frames

    def play_audio(self, frame: MediaFrame) -> None:
        if frame.is_speaking:
            self.leads.append(round(-self._clock.lateness_s(frame.frame) * FPS, 3))
            if len(self.leads) == self._n_frames:
                raise Spoken

    def play_image(self, frame: MediaFrame) -> None:
        assert frame.image is not None

    def drop_waiting(self) -> int:
        raise AssertionError("nothing interrupts")


def test_speech_is_rendered_ahead_by_one_more_frame_after_every_few(avatar_package: AvatarPackage):
    """All at once they would take both cores from the tracks, and from other sessions."""

    async def go() -> None:
        now_s = 0.0

        async def sleep(seconds: float) -> None:
            nonlocal now_s
            now_s += max(seconds, 1e-6)

        clock = FrameClock(lambda: now_s, sleep)
        session = MediaSession(avatar_package, FrameEncoder(avatar_package), SessionOptions(), asyncio.to_thread, clock)
        session.player = player = RecordingPlayer(clock, 40)
        speech = np.random.default_rng(1).integers(-9000, 9000, 2 * session.sample_rate)
        await session.handle_message(speech.astype("<i2").tobytes())
        await session.handle_message('{"type":"flush"}')
        with pytest.raises(Spoken):
            await session.produce_frames()
        assert player.leads == [min(n // FRAMES_PER_LEAD, MAX_LEAD) for n in range(40)]

    asyncio.run(go())
