from __future__ import annotations

import asyncio

from container.live.frame_clock import FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.session_options import SessionOptions
from container.live.webrtc.media_session import MediaSession
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
