"""When frames are due, by the wall clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

FPS = 25


class Pacer:
    """Frame n is due n / 25 s after the start.

    Each due time is counted from the start, not from the frame before: lateness does not add up.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """now: in seconds. sleep: for so many seconds or somewhat longer."""
        self._now, self._sleep = now, sleep
        self._start = now()

    async def until(self, frame: int) -> None:
        """Return when the frame is due; at once where it is late."""
        while (wait := self._start + frame / FPS - self._now()) > 0:
            await self._sleep(wait)

    def lateness_s(self, frame: int) -> float:
        """How long ago the frame was due; negative before."""
        return self._now() - self._start - frame / FPS
