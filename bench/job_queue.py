"""Measure submitting and claiming jobs while the queue grows.

    python -m bench.job_queue [--jobs 10000] [--claims 200]

Starts `viseme serve` without workers for jobs and submits jobs over one connection, each after a /ping over another, so
that both are measured in one run. Each submission is on the disk, with its input, before it is acknowledged. Then jobs
are claimed by turns from the server's queue and from one of a hundred jobs, in this process.

Prints p50 and p99 of /ping and of submitting, their ratio, submitting for the last tenth against the first, the memory
of the server after the first tenth and at the end, and the time of a claim from the long queue against the short one.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from bench.cold_start import run_server, wait_until_ready
from container.jobs.database import open_database
from container.jobs.job_queue import JobQueue
from container.jobs.processes import ProcessIdentity
from container.jobs.records import NewJob
from container.jobs.repository import JobRepository

INPUT_BYTES = 4096
N_SHORT = 100  # jobs of the short queue when the last claim has been made
MIB = 1 << 20
NEW = NewJob("", "owner", "client", "invocations", {"content-type": "video/mp4"}, "0" * 64, INPUT_BYTES)


class JobLoad:
    """Submits jobs to a server, and polls its /ping."""

    def __init__(self, host: str) -> None:
        self._submissions, self._pings = (http.client.HTTPConnection(host) for _ in range(2))

    def submit(self) -> None:
        """Submit a job. Raises: SystemExit if it is not accepted."""
        headers = {"content-type": "video/mp4"}
        request(self._submissions, 202, "POST", "/v1/jobs", os.urandom(INPUT_BYTES), headers)

    def ping(self) -> None:
        request(self._pings, 200, "GET", "/ping", None, {})


def request(
    connection: http.client.HTTPConnection,
    expected: int,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> None:
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != expected:
        raise SystemExit(f"{method} {path}: status {response.status}: {text[:500].decode(errors='replace')}")


def timed_ms(call: Callable[[], object]) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def p99(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.99))


def submit_all(host: str, server: psutil.Process, n_jobs: int) -> None:
    """Submit the jobs and print the latencies, and the memory of the server."""
    load = JobLoad(host)
    for _ in range(20):  # the first job opens the database
        load.ping()
        load.submit()
    tenth = n_jobs // 10
    pings, submissions, memory = [], [], []
    for i in range(n_jobs):
        pings.append(timed_ms(load.ping))
        submissions.append(timed_ms(load.submit))
        if i + 1 in (tenth, n_jobs):
            memory.append(server.memory_info().rss / MIB)
    for name, values in (("/ping", pings), ("submitting", submissions)):
        print(f"{name}, {len(values)} times: p50 {np.median(values):.1f} ms, p99 {p99(values):.1f} ms")
    first, last = submissions[:tenth], submissions[-tenth:]
    print(f"p99 of submitting to p99 of /ping: {p99(submissions) / p99(pings):.2f}")
    print(
        f"last {tenth} to first {tenth}: p50 {np.median(last) / np.median(first):.2f}, p99 {p99(last) / p99(first):.2f}"
        f" (/ping: p99 {p99(pings[-tenth:]) / p99(pings[:tenth]):.2f})"
    )
    print(f"memory of the server: {memory[0]:.0f} MiB after {tenth} jobs, {memory[1]:.0f} MiB after {n_jobs}")


def compare_claims(long: Path, short: Path, n_claims: int) -> None:
    """Claim from both queues by turns, and print the times. long, short: folders of the data."""
    engine = open_database(None, short)
    repository = JobRepository(engine)
    for i in range(N_SHORT + n_claims):
        repository.submit(replace(NEW, id=f"{i:032x}"))
    queues = [JobQueue(open_database(None, long)), JobQueue(engine)]
    process = ProcessIdentity.current()
    times: list[list[float]] = [[], []]
    for i in range(n_claims):
        for j in (0, 1) if i % 2 else (1, 0):
            times[j].append(timed_ms(lambda j=j: queues[j].claim("bench", process)))  # type: ignore[misc]
    p50 = [float(np.median(one)) for one in times]
    print(f"claiming, {n_claims} times: p50 {p50[0]:.2f} ms from the long queue, {p50[1]:.2f} ms from {N_SHORT}")
    print(f"claiming, long queue to short: p50 {p50[0] / p50[1]:.2f}, p99 {p99(times[0]) / p99(times[1]):.2f}")


def main() -> None:
    """Run the server and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {
            "VISEME_DATABASE_URL": f"sqlite:///{folder / 'data' / 'jobs' / 'jobs.sqlite3'}",
            "VISEME_JOB_STORAGE": str(folder / "files"),
            "VISEME_JOB_WORKERS": "0",
        }
        with run_server((str(Path(sys.executable).parent / "viseme"),), environment) as (server, url):
            wait_until_ready(url)
            submit_all(urlsplit(url).netloc, server, args.jobs)
        compare_claims(folder / "data", folder / "short", args.claims)


if __name__ == "__main__":
    main()
