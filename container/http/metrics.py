"""Prometheus metrics of one server."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inference.memory_usage import resident_bytes

BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)  # upper bounds of request durations
# Any number of scrapers cost no more than this: the others get the last text.
MAX_RENDERS = 8  # in an interval
RENDER_INTERVAL_S = 1.0

FRAME_COUNTERS = {
    "frames": "Frames of live sessions",
    "late_frames": "Frames of live sessions whose turn came 40 ms or more late",
    "dropped_frames": "Frames of live sessions that were dropped, as the client or, over WebRTC, the server was slow",
}


class Metrics:
    """Counters and gauges of requests, workers and live sessions."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Create metrics without any counts. now: returns the current time in seconds."""
        self._now = now
        self._rendered = b""
        self._rendered_at = deque([-float("inf")] * MAX_RENDERS, MAX_RENDERS)  # times of the last ones
        self._registry = CollectorRegistry()
        self._counted = dict.fromkeys(FRAME_COUNTERS, 0)
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
        self._frames = {
            name: Counter(f"viseme_live_{name}_total", description, registry=self._registry)
            for name, description in FRAME_COUNTERS.items()
        }
        self.jobs_queued = Gauge("viseme_jobs_queued", "Jobs that wait", registry=self._registry)
        self.jobs_running = Gauge("viseme_jobs_running", "Jobs that run, on every machine", registry=self._registry)
        self.jobs_oldest_wait = Gauge(
            "viseme_jobs_oldest_wait_seconds", "Seconds that the oldest queued job has waited", registry=self._registry
        )
        self.job_attempts = Gauge("viseme_job_attempts", "Attempts at the jobs on record", registry=self._registry)
        self.jobs_swept = Gauge(
            "viseme_jobs_swept", "Jobs whose files this server has swept or deleted", registry=self._registry
        )
        self.job_input_bytes = Gauge(
            "viseme_job_input_bytes", "Bytes of the inputs in storage", registry=self._registry
        )
        self.resident = Gauge(
            "viseme_resident_bytes",
            "Resident memory of the server, and of its workers",
            ["process"],
            registry=self._registry,
        )
        self.ready = Gauge("viseme_ready", "1 if /ping returns 200", registry=self._registry)

    def count(self, route: str, status: str, took_s: float) -> None:
        """Record one answered request."""
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(took_s)

    def count_frames(self, n_frames: int, n_late: int, n_dropped: int) -> None:
        """Record frames of live sessions, counted since the server started."""
        for name, n_now in zip(FRAME_COUNTERS, (n_frames, n_late, n_dropped), strict=True):
            self._frames[name].inc(n_now - self._counted[name])
            self._counted[name] = n_now

    def measure_memory(self, worker_pids: Iterable[int]) -> None:
        """Set the gauges of memory. Workers that have ended count as 0."""
        n_bytes = 0
        for pid in worker_pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                n_bytes += resident_bytes(pid)
        self.resident.labels("server").set(resident_bytes())
        self.resident.labels("workers").set(n_bytes)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes: as of now, or under many scrapes, of a second ago at most."""
        if self._now() - self._rendered_at[0] >= RENDER_INTERVAL_S:
            self._rendered = generate_latest(self._registry)
            self._rendered_at.append(self._now())
        return self._rendered
