"""The count and the log line of each answered request."""

from __future__ import annotations

import logging
import time

from container.http.log_throttle import LogThrottle
from container.http.metrics import Metrics

logger = logging.getLogger("viseme.http")


class RequestLog:
    """Counts and logs answered requests."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._denials = LogThrottle(logger)

    def record(self, route: str, request_id: str, started: float, status: int, code: str | None = None) -> None:
        """Count and log an answered request. started: on the clock of `time.monotonic`. code: of its error."""
        took_s = time.monotonic() - started
        self._metrics.count(route, str(status), took_s)
        extra = {"route": route, "status": status, "took_ms": round(took_s * 1000), "request_id": request_id}
        log = self._denials.info if code == "access_denied" else logger.info
        log("request", extra=extra if code is None else extra | {"code": code})
