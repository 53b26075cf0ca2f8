"""The messages of a streamed answer, taken from the worker before the caller has read them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from container.worker.messages import AnswerMessage, Done, Part
from inference.errors import DeadlineExceeded

READ_AHEAD_BYTES = 8 << 20  # bytes of a stream that wait for its caller; the words of an hour of video have 3 MB
READ_AHEAD_TIMEOUT_S = 5.0  # seconds for the caller to make room, while the worker waits


class ReadAhead:
    """Takes a worker's messages as they come and keeps them for a slower caller; an asynchronous iterator of them."""

    def __init__(
        self, first: AnswerMessage, messages: AsyncGenerator[AnswerMessage], place: contextlib.AsyncExitStack
    ) -> None:
        """Start to take messages. place: released after the last one, however much the caller has read by then."""
        self._place = place
        self._kept: deque[AnswerMessage] = deque([first])
        self._n_bytes = n_bytes_of(first)
        self._error: Exception | None = None  # StopAsyncIteration after the last message
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._take_all(messages))

    def __aiter__(self) -> ReadAhead:
        return self

    async def __anext__(self) -> AnswerMessage:
        """Return the next message. Raises: the errors of the messages; DeadlineExceeded if they came too fast."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._kept or self._error)
            if not self._kept:
                assert self._error is not None
                raise self._error
            message = self._kept.popleft()
            self._n_bytes -= n_bytes_of(message)
            self._changed.notify_all()
            return message

    async def aclose(self) -> None:
        """Take no more messages; a request that is still running is canceled."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._place.aclose()  # the task does it, unless it was canceled before its first step

    async def _take_all(self, messages: AsyncGenerator[AnswerMessage]) -> None:
        error: Exception = StopAsyncIteration()
        try:
            async with self._place:
                async for message in messages:
                    await self._keep(message)
        except Exception as err:  # noqa: BLE001 - raised again for the one who iterates
            error = err
        async with self._changed:
            self._error = error
            self._changed.notify_all()

    async def _keep(self, message: AnswerMessage) -> None:
        n_bytes = n_bytes_of(message)
        try:
            async with asyncio.timeout(READ_AHEAD_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: not self._kept or self._n_bytes + n_bytes <= READ_AHEAD_BYTES)
                self._kept.append(message)
                self._n_bytes += n_bytes
                self._changed.notify_all()
        except TimeoutError as err:
            raise DeadlineExceeded(
                f"the answer was not read for {READ_AHEAD_TIMEOUT_S:g} s while {self._n_bytes} bytes of it were waiting"
            ) from err


def n_bytes_of(message: AnswerMessage) -> int:
    """Return the size of what a message carries; of a file, which stays on disk, it is 0."""
    body = message.body if isinstance(message, Part | Done) else b""
    return len(body) if isinstance(body, bytes) else 0
