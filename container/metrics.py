"""Prometheus metrics of one server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """Counts what comes in and what goes out."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "viseme_requests_total", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "viseme_request_seconds",
            "From admission to the last byte",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.held = Gauge("viseme_requests_held", "Requests waiting or running", registry=self._registry)
        self.restarts = Gauge("viseme_worker_restarts", "Workers started again", registry=self._registry)
        self.sessions = Gauge("viseme_live_sessions", "Avatars that somebody is with", registry=self._registry)
        self.ready = Gauge("viseme_ready", "1 where /ping says 200", registry=self._registry)

    def count(self, route: str, status: str, took_s: float) -> None:
        """One request that was answered."""
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(took_s)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
