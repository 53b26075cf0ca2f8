"""The answers that are being sent, bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.types import Message, Send


@dataclass
class SentAnswer:
    """One answer that is being sent.

    blocked_at: on the event loop's clock, since when it waits for its caller to take something; None while it does not,
    such as a stream whose next line is not made yet.
    """

    timeout: asyncio.Timeout
    blocked_at: float | None = None

    def observe(self, send: Send) -> Send:
        """Return a function that sends, and notes how long it waits for the caller."""

        async def send_observed(message: Message) -> None:
            self.blocked_at = asyncio.get_running_loop().time()
            try:
                await send(message)
            finally:
                self.blocked_at = None

        return send_observed


class AnswerQuota:
    """Bounds how many answers are sent at once.

    One answer too many aborts the one whose caller has not read for longest: callers that do not read must not keep
    out those that do. An answer that waits for its worker is not aborted: the places of the queue bound those.
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
        if len(self._answers) >= self._max_answers:
            self._abort_one()
        answer = SentAnswer(timeout)
        self._answers.append(answer)
        try:
            yield answer
        finally:
            if answer in self._answers:
                self._answers.remove(answer)

    def _abort_one(self) -> None:
        """Abort the answer that has waited for its caller for longest, if any does."""
        blocked = [(one.blocked_at, i) for i, one in enumerate(self._answers) if one.blocked_at is not None]
        if blocked:
            _, i = min(blocked)
            with contextlib.suppress(RuntimeError):  # it is expiring already
                self._answers.pop(i).timeout.reschedule(asyncio.get_running_loop().time())
