"""Prometheus metrics of one server."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)  # upper bounds of request durations
RENDER_INTERVAL_S = 0.25  # any number of scrapers cost no more than four a second


class Metrics:
    """Counters and gauges of requests, workers and live sessions."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Create metrics without any counts. now: returns the current time in seconds."""
        self._now = now
        self._rendered, self._rendered_at = b"", -float("inf")
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "viseme_requests_total", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "viseme_request_seconds",
            "Seconds from admission to the last byte",
            ["route"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.in_flight = Gauge("viseme_requests_held", "Requests waiting or running", registry=self._registry)
        self.restarts = Gauge("viseme_worker_restarts", "Worker processes restarted", registry=self._registry)
        self.sessions = Gauge("viseme_live_sessions", "Open live sessions", registry=self._registry)
        self.ready = Gauge("viseme_ready", "1 if /ping returns 200", registry=self._registry)

    def count(self, route: str, status: str, took_s: float) -> None:
        """Record one answered request."""
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(took_s)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes, as of a quarter of a second ago at most."""
        if self._now() - self._rendered_at >= RENDER_INTERVAL_S:
            self._rendered, self._rendered_at = generate_latest(self._registry), self._now()
        return self._rendered
