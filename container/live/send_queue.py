"""The bounded queue of messages to one client."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any

from container.live.frame_counts import FrameCounts
from container.live.frame_messages import FrameMessage

MAX_QUEUED_MESSAGES = 64
MAX_QUEUED_PCM_BYTES = 2 * 48_000 * 10  # 10 s of int16 audio at 48 kHz


class SlowClient(Exception):
    """Raised if a client reads so slowly that its queue is full, or not at all."""


class SendQueue:
    """Events and frames for one client, in order.

    A frame that is still queued when the next one is pushed is dropped. The next frame carries its audio, and its
    visemes unless it has its own.
    """

    def __init__(self, counts: FrameCounts | None = None) -> None:
        """Create an empty queue. counts: to which dropped frames are added."""
        self._counts = FrameCounts() if counts is None else counts
        self._messages: deque[FrameMessage | str] = deque()
        self._pushed = asyncio.Event()
        self._popped = asyncio.Event()
        self.n_dropped = 0

    def push_event(self, kind: str, generation: int, **fields: Any) -> None:
        """Append an event as JSON text. Raises: SlowClient if the queue is full."""
        if len(self._messages) >= MAX_QUEUED_MESSAGES:
            raise SlowClient(f"{len(self._messages)} messages are queued for the client; the limit is reached")
        self._messages.append(json.dumps({"type": kind, "generation": generation} | fields))
        self._pushed.set()

    def push_frame(self, frame: FrameMessage) -> None:
        """Append a frame in place of one that is still queued.

        Raises: SlowClient if the audio of dropped frames is over the limit.
        """
        last = self._messages[-1] if self._messages else None
        if isinstance(last, FrameMessage):
            self._messages.pop()
            self.n_dropped += 1
            self._counts.n_dropped += 1
            if last.generation == frame.generation:
                visemes = last.visemes if frame.visemes is None else frame.visemes
                frame = replace(frame, pcm=last.pcm + frame.pcm, visemes=visemes)
        if len(frame.pcm) > MAX_QUEUED_PCM_BYTES:
            raise SlowClient(
                f"{len(frame.pcm)} bytes of audio are queued for the client; at most {MAX_QUEUED_PCM_BYTES} expected"
            )
        self._messages.append(frame)
        self._pushed.set()

    def drop_frames(self) -> None:
        """Drop all queued frames and their audio, because the speech was interrupted."""
        events = [message for message in self._messages if isinstance(message, str)]
        self.n_dropped += len(self._messages) - len(events)
        self._messages = deque(events)

    @property
    def n_queued(self) -> int:
        """Number of queued messages."""
        return len(self._messages)

    async def wait_until_not_empty(self) -> None:
        """Return when a message is queued."""
        while not self._messages:
            self._pushed.clear()
            await self._pushed.wait()

    async def wait_until_half_empty(self) -> None:
        """Return when the queue is at most half full, so that a client reads its events before it causes more."""
        while len(self._messages) > MAX_QUEUED_MESSAGES // 2:
            self._popped.clear()
            await self._popped.wait()

    def pop(self) -> FrameMessage | str | None:
        """Remove and return the oldest message, or None if the queue is empty."""
        self._popped.set()
        return self._messages.popleft() if self._messages else None
