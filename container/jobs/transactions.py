"""Transactions on the jobs database, and the writes that several of them share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from container.jobs.database import POSTGRESQL, WRITES, reason_of
from container.jobs.deliveries import delivery_rows
from container.jobs.records import AttemptOutcome, JobError, JobState
from container.jobs.rows import load_job
from container.jobs.schema import attempts, deliveries, events, jobs, outputs, turns, url_keys
from inference.errors import StorageError

DAY_S = 86_400.0
CLOCK_ROW = ""  # the client under which `turns` keeps the turn that was claimed last
NO_LEASE = {"lease_owner": None, "lease_host": None, "lease_process": None, "lease_expires_at": None}
Peaks = tuple[float | None, float | None]  # MiB of memory of the process and of the GPU; None: not measured
NOT_MEASURED: Peaks = (None, None)


@dataclass(frozen=True)
class JobLimits:
    """Limits of the queue.

    max_queued: jobs that wait at once. max_attempts: per job. keep_s: seconds that a finished job and its files are
    kept. max_input_bytes: of the inputs in storage. min_free_bytes: that inputs leave free on its disk.
    """

    max_queued: int = 100_000
    max_attempts: int = 5
    keep_s: float = 7 * DAY_S
    max_input_bytes: int = 100 << 30
    min_free_bytes: int = 1 << 30


class JobTransactions:
    """Transactions on the jobs database. Safe to use from several threads, processes and machines."""

    def __init__(self, engine: Engine, limits: JobLimits | None = None, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970; the machines that share a database must agree within a few seconds."""
        self._engine, self._limits, self._clock = engine, limits or JobLimits(), clock

    @property
    def _is_postgresql(self) -> bool:
        return self._engine.dialect.name == POSTGRESQL

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with storage_errors(), self._engine.begin() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with storage_errors(), self._engine.connect().execution_options(**{WRITES: True}) as db, db.begin():
            yield db

    def _upsert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Return an insertion that may say what to do on a conflict."""
        return postgresql.insert(table) if self._is_postgresql else sqlite.insert(table)

    def _raise_turn(self, db: Connection, client: str, turn: int) -> None:
        upsert = self._upsert(turns).values(client=client, turn=turn)
        db.execute(
            upsert.on_conflict_do_update(
                index_elements=[turns.c.client], set_={"turn": upsert.excluded.turn}, where=turns.c.turn < turn
            )
        )

    def _final_values(self) -> dict[str, Any]:
        now = self._clock()
        return {"finished_at": now, "expires_at": now + self._limits.keep_s} | NO_LEASE

    def _end_attempt(
        self,
        db: Connection,
        number: int,
        attempt: int,
        outcome: AttemptOutcome,
        error: JobError | None,
        peaks: Peaks = NOT_MEASURED,
    ) -> None:
        """Record the end of an attempt that has not ended. It does nothing for jobs that were never started."""
        running = attempts.c.job_number == number, attempts.c.number == attempt, attempts.c.ended_at.is_(None)
        values = {
            "ended_at": self._clock(),
            "outcome": outcome,
            "error": None if error is None else asdict(error),
            "ram_peak_mib": peaks[0],
            "vram_peak_mib": peaks[1],
        }
        db.execute(update(attempts).where(*running).values(values))

    def _end_outputs(self, db: Connection, number: int, state: JobState, error: JobError | None) -> None:
        """End the outputs that are not done, and withdraw those that are: nothing of a failed job is published."""
        unfinished = outputs.c.job_number == number, outputs.c.state.not_in((JobState.FAILED, JobState.CANCELED))
        values = {"state": state, "key": None, "error": None if error is None else asdict(error)}
        db.execute(update(outputs).where(*unfinished).values(values))

    def _announce_end(self, db: Connection, number: int) -> None:
        """Add the event of a job's end, and the webhook that reports it."""
        job = load_job(db, jobs.c.number == number)
        data: dict[str, Any] = {"state": job.state}
        if job.error is not None:
            data["error"] = asdict(job.error)
        self._add_event(db, number, job.attempt, "state", data)
        if rows := delivery_rows(job, self._clock(), self._url_key(db)):
            db.execute(insert(deliveries), rows)

    def _url_key(self, db: Connection) -> bytes:
        """Return the key that signs the URLs of outputs."""
        return bytes.fromhex(db.execute(select(url_keys.c.secret)).scalar_one())

    def _add_event(self, db: Connection, number: int, attempt: int, kind: str, data: dict[str, Any]) -> None:
        """Add an event. The job's row is locked by then, so that the numbers follow one another."""
        last = db.scalar(select(func.max(events.c.sequence)).where(events.c.job_number == number)) or 0
        row = {"job_number": number, "sequence": last + 1, "attempt": attempt, "kind": kind, "data": data}
        db.execute(insert(events).values(row | {"created_at": self._clock()}))


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise StorageError for what goes wrong with the database."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as err:  # the latter: every connection is in use, and stays so
        raise StorageError(f"the jobs database failed ({reason_of(err)})") from err


def of_job(job_id: str, owner: str | None) -> ColumnElement[bool]:
    """Return the condition that a job has this id, and is this owner's if one is given."""
    return jobs.c.id == job_id if owner is None else and_(jobs.c.id == job_id, jobs.c.owner == owner)


def is_over(time: ColumnElement[float], now: float, max_ahead_s: float) -> ColumnElement[bool]:
    """Return the condition that a time is over.

    max_ahead_s: a time that is further ahead was recorded while a clock was wrong, and is taken as over.
    """
    return or_(time <= now, time > now + max_ahead_s)
