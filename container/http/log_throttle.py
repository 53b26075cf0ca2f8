"""Log lines that any caller can cause, bounded in number: a flood must not fill the disk, nor take the CPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

MAX_LINES = 20  # in an interval
INTERVAL_S = 10.0


class LogThrottle:
    """Writes so many lines in each interval, and counts the others.

    The first line of a later interval has their number in the field `suppressed`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        now: Callable[[], float] = time.monotonic,
        *,
        max_lines: int = MAX_LINES,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Create a throttle. now: returns the current time in seconds."""
        self._logger, self._now, self._max_lines, self._interval_s = logger, now, max_lines, interval_s
        self._started = -float("inf")  # of the interval
        self._n_lines = 0  # in the interval, suppressed ones included
        self._n_suppressed = 0  # since the last line

    def info(self, event: str, extra: Mapping[str, Any]) -> None:
        """Write a line, unless too many were written in this interval."""
        if self._now() - self._started >= self._interval_s:
            self._started, self._n_lines = self._now(), 0
        self._n_lines += 1
        if self._n_lines > self._max_lines:
            self._n_suppressed += 1
            return
        suppressed, self._n_suppressed = self._n_suppressed, 0
        self._logger.info(event, extra=dict(extra) | ({"suppressed": suppressed} if suppressed else {}))
