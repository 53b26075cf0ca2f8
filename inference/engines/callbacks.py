"""Callbacks and limits that a server attaches to a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DeadlineExceeded
from inference.lip_reading.partial_words import OnWords
from inference.stage_timer import do_nothing


def ignore_progress(_share: float) -> None:
    """Do nothing: the default if the server reports no progress."""


@dataclass(frozen=True)
class RequestCallbacks:
    """What a server wants called while a request runs, and the limits it sets. A callback that raises ends the request.

    check: called often, to end a request that is no longer wanted. on_words: called with words as they are read,
    if the answer is streamed. folder: for videos, deleted by the server; None: the response owns a folder.
    timeout_s: how long the caller waits for lip sync; None: only the settings limit it. request_id: for the log.
    on_progress: called often with the share of the video that is done, 0 to 1.
    """

    check: Callable[[], None] = do_nothing
    on_words: OnWords | None = None
    folder: Path | None = None
    timeout_s: float | None = None
    request_id: str | None = None
    on_progress: Callable[[float], None] = ignore_progress

    @classmethod
    def with_deadline(cls, limit_s: float) -> RequestCallbacks:
        """Return callbacks that end a request with DeadlineExceeded when it takes longer."""
        end = time.monotonic() + limit_s

        def check() -> None:
            if time.monotonic() > end:
                raise DeadlineExceeded(f"the request took longer than {limit_s:g} s")

        return cls(check=check, timeout_s=limit_s)
