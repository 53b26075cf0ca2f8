"""The answers that are being sent, bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.types import Message, Send


@dataclass
class SentAnswer:
    """One answer that is being sent. taken_at: when its caller last took something, on the event loop's clock."""

    timeout: asyncio.Timeout
    taken_at: float

    def observe(self, send: Send) -> Send:
        """Return a function that sends, and notes when the caller has taken enough for the next message."""

        async def send_observed(message: Message) -> None:
            await send(message)
            self.taken_at = asyncio.get_running_loop().time()

        return send_observed


class AnswerQuota:
    """Bounds how many answers are sent at once.

    One answer too many aborts the one whose caller has not read for longest: callers that do not read must not keep
    out those that do.
    """

    def __init__(self, max_answers: int) -> None:
        self._max_answers = max_answers
        self._answers: list[SentAnswer] = []

    @property
    def n_sending(self) -> int:
        return len(self._answers)

    @contextlib.contextmanager
    def sending(self, timeout: asyncio.Timeout) -> Iterator[SentAnswer]:
        """Count an answer. timeout: of the block that sends it; it is made to expire in order to abort the answer."""
        now = asyncio.get_running_loop().time()
        if len(self._answers) >= self._max_answers:
            stalled = min(self._answers, key=lambda one: one.taken_at)
            self._answers.remove(stalled)
            with contextlib.suppress(RuntimeError):  # it is expiring already
                stalled.timeout.reschedule(now)
        answer = SentAnswer(timeout, now)
        self._answers.append(answer)
        try:
            yield answer
        finally:
            if answer in self._answers:
                self._answers.remove(answer)
