"""The wall clock that paces frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from container.live.frame_counts import FrameCounts

FPS = 25


class FrameClock:
    """A clock by which frame n is due n / 25 s after the start.

    Each due time is counted from the start, not from the previous frame, so lateness does not add up.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        counts: FrameCounts | None = None,
    ) -> None:
        """Start the clock.

        now: returns the current time in seconds. sleep: waits that many seconds, or slightly longer. counts: to which
        the frames are added.
        """
        self._now, self._sleep = now, sleep
        self.counts = FrameCounts() if counts is None else counts
        self._start = now()

    def restart(self) -> None:
        """Start again: frame 0 is due now."""
        self._start = self._now()

    async def wait_until_due(self, frame: int, lead: int = 0) -> None:
        """Return when the frame is due, or at once if it is late. Count it. lead: return so many frames earlier."""
        self.counts.n_frames += 1
        self.counts.n_late += self.lateness_s(frame) >= 1 / FPS
        await self.wait_until((frame - lead) / FPS)

    async def wait_until(self, time_s: float) -> None:
        """Return so many seconds after the start."""
        while (wait_s := time_s - self.elapsed_s()) > 0:
            await self._sleep(wait_s)

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return self._now() - self._start

    def lateness_s(self, frame: int) -> float:
        """Return how long ago the frame was due, in seconds; negative if it is not due yet."""
        return self.elapsed_s() - frame / FPS
