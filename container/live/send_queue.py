"""What waits to be sent to one client, never much of it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

from container.live.frame_messages import FrameMessage

MOST_EVENTS = 64  # that wait for a client
MOST_PCM = 2 * 48_000 * 10  # bytes of sound that wait: ten seconds at the highest rate


class TooSlow(Exception):
    """The client takes nothing, and more waits for it than is kept."""


class Outbox:
    """Events and frames in their order, for a client that may be slow.

    A frame that is still here when the next one comes is dropped, but not its sound: that goes with the next one.
    """

    def __init__(self) -> None:
        self._waiting: deque[FrameMessage | str] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self.n_dropped = 0

    def put_event(self, kind: str, generation: int, **about: Any) -> None:
        """Raises: TooSlow."""
        if len(self._waiting) >= MOST_EVENTS:
            raise TooSlow(f"{len(self._waiting)} messages wait for the client")
        self._waiting.append(json.dumps({"type": kind, "generation": generation} | about))
        self._filled.set()

    def put_frame(self, frame: FrameMessage) -> None:
        """Raises: TooSlow."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, FrameMessage):
            self._waiting.pop()
            self.n_dropped += 1
            if last.generation == frame.generation:
                frame = replace(frame, pcm=last.pcm + frame.pcm)
        if len(frame.pcm) > MOST_PCM:
            raise TooSlow(f"{len(frame.pcm)} bytes of sound wait for the client")
        self._waiting.append(frame)
        self._filled.set()

    def drop_frames(self) -> None:
        """Forget all frames, and their sound with them: the speech was interrupted."""
        kept = [one for one in self._waiting if isinstance(one, str)]
        self.n_dropped += len(self._waiting) - len(kept)
        self._waiting = deque(kept)

    @property
    def n_waiting(self) -> int:
        """Messages."""
        return len(self._waiting)

    async def wait(self) -> None:
        """Return when something is here."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()

    async def wait_for_room(self) -> None:
        """Return when less than half of what may is here: who causes many events is to take them first."""
        while len(self._waiting) > MOST_EVENTS // 2:
            self._emptied.clear()
            await self._emptied.wait()

    def take(self) -> FrameMessage | str | None:
        """The first of what waits."""
        self._emptied.set()
        return self._waiting.popleft() if self._waiting else None
