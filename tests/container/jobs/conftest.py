"""Databases and clocks for the tests of jobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from support.postgresql import empty_tables, postgresql_server

from container.jobs.database import open_database
from container.jobs.job_queue import JobQueue
from container.jobs.processes import ProcessIdentity
from container.jobs.records import JobRecord, Lease, NewJob
from container.jobs.repository import JobRepository
from container.jobs.transactions import JobLimits

LIMITS = JobLimits(max_queued=100, max_attempts=3, keep_s=1000.0)
THIS_PROCESS = ProcessIdentity("host-a", "100:1")


class ManualClock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class JobDatabase:
    """The records and the queue over one database."""

    repository: JobRepository
    queue: JobQueue
    clock: ManualClock
    engine: Engine

    def submit(self, **fields: object) -> JobRecord:
        return self.repository.submit(replace(next(NEW_JOBS), **fields)).job  # type: ignore[arg-type]

    def claim(self, worker: str = "worker-a", process: ProcessIdentity = THIS_PROCESS) -> Lease:
        claimed = self.queue.claim(worker, process)
        assert claimed is not None
        return claimed[0]

    def find(self, job_id: str) -> JobRecord:
        return self.repository.find(job_id)


NEW_JOBS = (
    NewJob(f"{i:032x}", "owner-a", "client-a", "invocations", {"content-type": "video/mp4"}, f"{i:064x}", 10)
    for i in itertools.count(1)
)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    engine = open_database(url, tmp_path)
    yield engine
    if url is not None:
        with engine.begin() as connection:
            empty_tables(connection)
    engine.dispose()


@pytest.fixture
def database(engine: Engine) -> JobDatabase:
    clock = ManualClock()
    return JobDatabase(JobRepository(engine, LIMITS, clock), JobQueue(engine, LIMITS, clock), clock, engine)
