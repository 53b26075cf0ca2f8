"""Prove that jobs are neither lost nor done twice, whatever is killed.

    python -m bench.job_kills [--seed 1] [--server-jobs 200] [--worker-jobs 50] [--shared-jobs 300]

First a server with workers of its own and SQLite, then a server, Redis, PostgreSQL and three `viseme worker`s on what
stands for two machines. While jobs are submitted over HTTP and run, processes are killed by SIGKILL at random moments,
and started again; Redis is flushed and restarted, and PostgreSQL is restarted, which cuts every connection. Each job
that was acknowledged must end exactly once, with the right bytes, and there must be no other one.

Last, three workers share jobs, and their number changes: when a fifth has ended one is killed, at two fifths one is
ended by SIGTERM, and at three fifths one is added. The lost job runs again, and that of the ended worker ends first.

The children have no models: what they write follows from the input, and takes 0.1 to 3 s. Leases last 6 s, and the
queue is looked at each second, instead of 30 s and 5 s. Exits with status 1 if a job was lost, done twice or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.backing_servers import PostgresqlServer, RedisServer, free_port, postgresql_server, redis_server
from bench.job_child import OUTPUT, make_input, make_output
from bench.job_processes import JobMachines, JobProcess, Times

TIMES = Times(lease_s=6.0, poll_s=1.0, grace_s=20.0)
TIMEOUT_S = 900.0  # only a guard against hanging
PAUSE_S = (0.5, 2.5)  # between two faults, from and to
WORK_S = (1.0, 8.0)  # the same once the processes run again
SETTLED_SHARE = 0.75  # of faults, which wait until the processes run again: otherwise they would do nothing but start
SERVER_JOB_S = (0.1, 1.0)  # seconds of a job, from and to
WORKER_JOB_S = (0.5, 3.0)
SHARED_JOB_S = (0.1, 0.5)
OUTAGE_S = 0.5  # of Redis and PostgreSQL
RETRY_S = 0.2
WORKERS = ("machine-a", "machine-a", "machine-b")
FINAL = ("succeeded", "failed", "canceled")


class JobClient:
    """Submits jobs to a server that may be gone at any moment, and reads what became of them."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False)
        self.n_repeated = 0  # calls

    def submit(self, i: int, body: bytes) -> str:
        """Submit job i until it is acknowledged. Returns: its id."""
        headers = {"content-type": "video/mp4", "idempotency-key": f"job-{i}"}
        job_id: str = self._call("POST", "/v1/jobs", content=body, headers=headers).json()["id"]
        return job_id

    def wait(self, job_id: str) -> dict[str, Any]:
        """Return a job once it has ended."""
        deadline = time.monotonic() + TIMEOUT_S
        while (job := self._call("GET", f"/v1/jobs/{job_id}").json())["state"] not in FINAL:
            if time.monotonic() > deadline:
                break
            time.sleep(RETRY_S)
        return dict(job)

    def download(self, url: str) -> bytes:
        return self._call("GET", url).content

    def ids(self) -> list[str]:
        """Return the ids of all jobs, page by page."""
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = self._call("GET", "/v1/jobs", params={"limit": 100} | ({"cursor": cursor} if cursor else {})).json()
            found += [job["id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call until there is an answer that is not the fault of the server's end, or of the database's."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                response = self._http.request(method, path, **options)
                if response.status_code < 500:
                    response.raise_for_status()
                    return response
            if time.monotonic() > deadline:
                raise SystemExit(f"{method} {path}: no answer in {TIMEOUT_S:.0f} s")
            self.n_repeated += 1
            time.sleep(RETRY_S)


@dataclass
class Slot:
    """A process, and how its successors are started."""

    start: Callable[[], JobProcess]
    process: JobProcess

    def kill(self) -> None:
        """Kill the process alone, and start its successor."""
        self.process.kill()
        self.process = self.start()

    def settle(self) -> None:
        """Wait until the process is ready."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.process.is_ready and self.process.exit_code is None and time.monotonic() < deadline:
            time.sleep(RETRY_S)

    def kill_child(self) -> bool:
        """Kill the last of the process's children; return whether there was one."""
        with contextlib.suppress(psutil.Error):
            children = [
                one for one in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(one.cmdline())
            ]
            if children:
                children[-1].kill()
                return True
        return False


class Faults:
    """Causes one fault after another, at random moments, in a thread: some while the processes start again."""

    def __init__(self, kinds: Mapping[str, Callable[[], object]], slots: Iterable[Slot], seed: int) -> None:
        self._kinds, self._slots, self._random = dict(kinds), list(slots), seeded(seed)
        self._is_over = threading.Event()
        self._left: list[str] = []  # of the kinds in this round
        self.counts: Counter[str] = Counter()

    @contextmanager
    def occurring(self) -> Iterator[None]:
        """Cause faults inside of the block."""
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(self._run)
            try:
                yield
            finally:
                self._is_over.set()
            running.result()

    def on_ended(self, share: float) -> None:
        """Do nothing: these faults occur by themselves."""

    def _run(self) -> None:
        while not self._is_over.wait(self._random.uniform(*PAUSE_S)):
            if self._random.random() < SETTLED_SHARE:
                for slot in self._slots:
                    slot.settle()
                self._is_over.wait(self._random.uniform(*WORK_S))
            kind = self._next_kind()
            if self._kinds[kind]() is not False:
                self.counts[kind] += 1

    def _next_kind(self) -> str:
        """Return a random kind; each one occurs once in a round."""
        if not self._left:
            self._left = sorted(self._kinds)
            self._random.shuffle(self._left)
        return self._left.pop()


class Changes:
    """Causes one fault after another, each when one more fifth of the jobs has ended."""

    def __init__(self, kinds: Mapping[str, Callable[[], object]]) -> None:
        self._kinds = list(kinds.items())
        self.counts: Counter[str] = Counter()

    def occurring(self) -> AbstractContextManager[None]:
        """Cause nothing of itself: see `on_ended`."""
        return contextlib.nullcontext()

    def on_ended(self, share: float) -> None:
        """Cause what is due. share: of the jobs that have ended."""
        while self._kinds and share >= (sum(self.counts.values()) + 1) / 5:
            name, change = self._kinds.pop(0)
            change()
            self.counts[name] += 1


@dataclass(frozen=True)
class Verdict:
    """What was found. violations: one line each."""

    n_jobs: int
    n_attempts: int
    most_attempts: int
    n_repeated: int
    took_s: float
    violations: tuple[str, ...]


def main() -> None:
    """Print what was killed, and what became of the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server-jobs", type=int, default=200, metavar="N")
    parser.add_argument("--worker-jobs", type=int, default=50, metavar="N")
    parser.add_argument("--shared-jobs", type=int, default=300, metavar="N")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, so that what was started is killed
    verdicts = []
    proofs = (
        (prove_server, args.server_jobs),
        (prove_workers, args.worker_jobs),
        (prove_changed_workers, args.shared_jobs),
    )
    for prove, n_jobs in proofs:
        if n_jobs:
            with tempfile.TemporaryDirectory(prefix="viseme-job-kills-") as folder:
                verdicts.append(prove(Path(folder), n_jobs, args.seed))
    raise SystemExit(any(verdict.violations for verdict in verdicts))


def prove_server(root: Path, n_jobs: int, seed: int) -> Verdict:
    """Kill a server that runs its jobs itself, and its children."""
    port = free_port()
    machines = JobMachines(root, None, None, TIMES)
    with processes(lambda: machines.start_server(port, job_workers="2")) as (server,):
        faults = Faults({"server killed": server.kill, "child killed": server.kill_child}, [server], seed)
        return report(
            "server, SQLite", run_jobs(JobClient(port), make_bodies(n_jobs, SERVER_JOB_S, seed), faults), faults
        )


def prove_workers(root: Path, n_jobs: int, seed: int) -> Verdict:
    """Kill a server and the workers that run its jobs, and restart what is between them."""
    port = free_port()
    with postgresql_server() as postgresql, redis_server() as redis:
        machines = JobMachines(root, postgresql.url, redis.url, TIMES)
        starts = [lambda name=name: machines.start_worker(name) for name in WORKERS]
        with processes(lambda: machines.start_server(port), *starts) as (server, *workers):
            chosen = seeded(seed)
            kinds: dict[str, Callable[[], object]] = {
                "server killed": server.kill,
                "worker killed": lambda: chosen.choice(workers).kill(),
                "child killed": lambda: chosen.choice(workers).kill_child(),
                "Redis flushed": redis.flush,
                "Redis restarted": lambda: restart(redis),
                "PostgreSQL restarted": lambda: restart(postgresql),
            }
            faults = Faults(kinds, [server, *workers], seed)
            return report(
                "3 workers, Redis, PostgreSQL",
                run_jobs(JobClient(port), make_bodies(n_jobs, WORKER_JOB_S, seed), faults),
                faults,
            )


def prove_changed_workers(root: Path, n_jobs: int, seed: int) -> Verdict:
    """Kill a worker, end another one, and add one, while they share jobs."""
    port = free_port()
    with postgresql_server() as postgresql, redis_server() as redis:
        machines = JobMachines(root, postgresql.url, redis.url, TIMES)
        starts = [lambda name=name: machines.start_worker(name) for name in WORKERS]
        with processes(lambda: machines.start_server(port), *starts) as slots:
            _, killed, ended, _ = slots

            def add() -> None:
                slots.append(Slot(lambda: machines.start_worker("machine-c"), machines.start_worker("machine-c")))

            changes = {
                "worker killed": killed.process.kill_all,
                "worker ended": ended.process.terminate,
                "worker added": add,
            }
            faults = Changes(changes)
            verdict = run_jobs(JobClient(port), make_bodies(n_jobs, SHARED_JOB_S, seed), faults)
            found = (ended.process.wait(TIMES.grace_s), slots[-1].process.is_ready)
            if found != (0, True):
                violations = (*verdict.violations, f"the ended worker and the added one: {found}; expected (0, True)")
                verdict = replace(verdict, violations=violations)
            return report("workers that change, Redis, PostgreSQL", verdict, faults)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (not for secrets)


@contextmanager
def processes(*starts: Callable[[], JobProcess]) -> Iterator[list[Slot]]:
    """Yield started processes; those that run after the block are killed."""
    slots = [Slot(start, start()) for start in starts]
    try:
        yield slots
    finally:
        for slot in slots:
            slot.process.kill_all()


def restart(server: RedisServer | PostgresqlServer) -> None:
    server.stop()
    time.sleep(OUTAGE_S)
    server.start()


def make_bodies(n_jobs: int, duration_s: tuple[float, float], seed: int) -> list[bytes]:
    chosen = seeded(seed)
    return [make_input(i, chosen.uniform(*duration_s)) for i in range(n_jobs)]


def run_jobs(client: JobClient, bodies: Sequence[bytes], faults: Faults | Changes) -> Verdict:
    """Submit jobs while faults occur, wait for their ends, and check them."""
    started = time.monotonic()
    with faults.occurring():
        ids = [client.submit(i, body) for i, body in enumerate(bodies)]
        jobs = []
        for job_id in ids:
            jobs.append(client.wait(job_id))
            faults.on_ended(len(jobs) / len(ids))
    took_s = time.monotonic() - started
    violations = [line for body, job in zip(bodies, jobs, strict=True) for line in check(client, body, job)]
    recorded = client.ids()
    if sorted(recorded) != sorted(ids) or len(set(ids)) != len(bodies):
        violations.append(f"{len(recorded)} jobs are recorded; expected {len(bodies)}")
    attempts = [len(job["attempts"]) for job in jobs]
    return Verdict(len(bodies), sum(attempts), max(attempts), client.n_repeated, took_s, tuple(violations))


def check(client: JobClient, body: bytes, job: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a job."""
    ends = [attempt["outcome"] for attempt in job["attempts"]].count("succeeded")
    if job["state"] != "succeeded" or ends != 1:
        yield f"{job['id']}: {job['state']}, succeeded {ends} times, {job['error']}"
        return
    if client.wait(job["id"]) != job:
        yield f"{job['id']}: changed after its end"
    names = [output["name"] for output in job["outputs"]]
    if names != [OUTPUT] or client.download(job["outputs"][0]["url"]) != make_output(body):
        yield f"{job['id']}: wrong bytes in {names}"


def report(name: str, verdict: Verdict, faults: Faults | Changes) -> Verdict:
    """Print a verdict and return it."""
    print(f"\n{name}: {verdict.n_jobs} jobs in {verdict.took_s:.0f} s on {os.cpu_count()} cores")
    for kind, count in sorted(faults.counts.items()):
        print(f"  {kind:<22}{count:>5}")
    print(f"  {'attempts':<22}{verdict.n_attempts:>5}, at most {verdict.most_attempts} of one job")
    print(f"  {'calls repeated':<22}{verdict.n_repeated:>5}")
    print(f"  {'violations':<22}{len(verdict.violations):>5}", flush=True)
    for line in verdict.violations:
        print(f"    {line}")
    return verdict


if __name__ == "__main__":
    main()
