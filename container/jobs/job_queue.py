"""The queue that workers take jobs from.

A job is claimed by one conditional update, which numbers the attempt and takes a lease; all that the attempt writes
later is conditional on that lease, so that of two workers that both believe to run a job at most one publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Select, and_, delete, func, insert, or_, select, update

from container.jobs.processes import ProcessIdentity
from container.jobs.records import AttemptOutcome, JobError, JobRecord, JobState, Lease, OutputRecord
from container.jobs.rows import load_job
from container.jobs.schema import IS_QUEUED, IS_RUNNING, attempts, jobs, outputs
from container.jobs.transactions import CLOCK_ROW, NO_LEASE, NOT_MEASURED, JobTransactions, Peaks, is_over
from inference.errors import LeaseLost

LEASE_S = 30.0  # seconds that a lease lasts
RENEWAL_S = 10.0  # seconds between renewals
SWEEP_BATCH = 100  # jobs freed per transaction
MAX_AHEAD_S = 600.0  # that a lease or a retry can be ahead
WORKER_DIED = "worker_died"


class JobQueue(JobTransactions):
    """The queue of jobs, as workers see it. Any method raises StorageError if the database cannot be reached."""

    def claim(self, worker: str, process: ProcessIdentity) -> tuple[Lease, JobRecord] | None:
        """Take the next job, in state starting, or return None if none is ready.

        worker: a name unique to the claimer. process: that runs the job, so that its lease is freed if it is dead.
        """
        now = self._clock()
        ready = self._is_ready()
        first: Select[Any] = select(jobs.c.number).where(*ready).order_by(jobs.c.turn, jobs.c.number).limit(1)
        if self._is_postgresql:
            first = first.with_for_update(skip_locked=True)
        taken = {
            "state": JobState.STARTING,
            "stage": "starting",
            "progress": 0,
            "attempt": jobs.c.attempt + 1,
            "lease_owner": worker,
            "lease_host": process.host,
            "lease_process": process.process,
            "lease_expires_at": now + LEASE_S,
            "retry_at": None,
            "started_at": func.coalesce(jobs.c.started_at, now),
        }
        with self._writing() as db:
            claimed = update(jobs).where(jobs.c.number == first.scalar_subquery(), IS_QUEUED)
            row = db.execute(claimed.values(taken).returning(jobs.c.number, jobs.c.turn)).one_or_none()
            if row is None:
                return None
            self._raise_turn(db, CLOCK_ROW, row.turn)
            job = load_job(db, jobs.c.number == row.number)
            attempt = {"job_number": row.number, "number": job.attempt, "worker": worker, "started_at": now}
            db.execute(insert(attempts).values(attempt))
            self._reset_outputs(db, row.number)
            self._add_event(db, row.number, job.attempt, "state", {"state": JobState.STARTING, "attempt": job.attempt})
            return Lease(row.number, job.id, job.attempt, worker), load_job(db, jobs.c.number == row.number)

    def has_ready(self) -> bool:
        """Return whether a job could be claimed now."""
        with self._reading() as db:
            return db.scalar(select(jobs.c.number).where(*self._is_ready()).limit(1)) is not None

    def renew(self, lease: Lease) -> None:
        """Extend a lease. Raises: LeaseLost if it has expired or been taken, or the job was canceled."""
        with self._writing() as db:
            self._update_leased(db, lease, {"lease_expires_at": self._clock() + LEASE_S})

    def start(self, lease: Lease, stage: str = "processing") -> None:
        """Record that the work has begun. Raises: LeaseLost."""
        with self._writing() as db:
            values = {"state": JobState.PROCESSING, "stage": stage, "lease_expires_at": self._clock() + LEASE_S}
            self._update_leased(db, lease, values)
            self._add_event(db, lease.job_number, lease.attempt, "state", {"state": JobState.PROCESSING})

    def begin_outputs(self, lease: Lease, task: str, names: Sequence[str]) -> None:
        """Record the task, and that its outputs are being made, and renew the lease. Raises: LeaseLost."""
        with self._writing() as db:
            self._update_leased(db, lease, {"task": task, "lease_expires_at": self._clock() + LEASE_S})
            others = outputs.c.job_number == lease.job_number, outputs.c.name.not_in(names)
            db.execute(delete(outputs).where(*others))  # an earlier attempt may have run with another default model
            for name in names:
                self._write_output(db, lease.job_number, OutputRecord(name, JobState.PROCESSING))

    def report_progress(self, lease: Lease, stage: str, progress: int) -> None:
        """Record the stage and the percent that are done, at most 99, and renew the lease. Raises: LeaseLost."""
        with self._writing() as db:
            values = {
                "stage": stage,
                "progress": min(max(progress, 0), 99),
                "lease_expires_at": self._clock() + LEASE_S,
            }
            self._update_leased(db, lease, values)
            data = {"stage": stage, "progress": values["progress"]}
            self._add_event(db, lease.job_number, lease.attempt, "progress", data)

    def add_words(self, lease: Lease, words: Sequence[Mapping[str, Any]]) -> None:
        """Record words as they are read, and renew the lease. Raises: LeaseLost."""
        with self._writing() as db:
            self._update_leased(db, lease, {"lease_expires_at": self._clock() + LEASE_S})
            self._add_event(db, lease.job_number, lease.attempt, "words", {"words": list(words)})

    def record_output(self, lease: Lease, output: OutputRecord) -> None:
        """Record the state of one output, by its name. Raises: LeaseLost."""
        with self._writing() as db:
            self._update_leased(db, lease, {"lease_expires_at": self._clock() + LEASE_S})
            self._write_output(db, lease.job_number, output)

    def publish(
        self,
        lease: Lease,
        result: dict[str, Any] | None,
        written: Sequence[OutputRecord],
        peaks: Peaks = NOT_MEASURED,
    ) -> None:
        """Record that the job has succeeded, with all its outputs. Doing it twice is no error.

        result: the answer's JSON. peaks: MiB of memory of the process and of the GPU.
        Raises: LeaseLost; then nothing is published.
        """
        ended = {"state": JobState.SUCCEEDED, "stage": "done", "progress": 100, "result": result}
        with self._writing() as db:
            try:
                self._update_leased(db, lease, ended | self._final_values())
            except LeaseLost:
                if self._is_published(db, lease):
                    return
                raise
            for output in written:
                self._write_output(db, lease.job_number, output)
            self._end_attempt(db, lease.job_number, lease.attempt, AttemptOutcome.SUCCEEDED, None, peaks)
            self._announce_end(db, lease.job_number)

    def is_published(self, lease: Lease) -> bool:
        """Return whether this attempt has published."""
        with self._reading() as db:
            return self._is_published(db, lease)

    def fail(
        self,
        lease: Lease,
        error: JobError,
        *,
        retry_after_s: float | None = None,
        peaks: Peaks = NOT_MEASURED,
    ) -> None:
        """Record that the attempt failed.

        retry_after_s: queue the job again after so many seconds, if it has attempts left; None: it failed for good.
        Raises: LeaseLost.
        """
        with self._writing() as db:
            if retry_after_s is not None and self._n_attempts_left(db, lease.job_number) > 0:
                again = self._queued_values() | {"retry_at": self._clock() + retry_after_s}
                self._update_leased(db, lease, again)
                self._reset_outputs(db, lease.job_number)
                self._end_attempt(db, lease.job_number, lease.attempt, AttemptOutcome.FAILED, error, peaks)
                data = {"state": JobState.QUEUED, "error": asdict(error)}
                self._add_event(db, lease.job_number, lease.attempt, "state", data)
                return
            values = {"state": JobState.FAILED, "stage": "failed", "error": asdict(error)}
            self._update_leased(db, lease, values | self._final_values())
            self._end_outputs(db, lease.job_number, JobState.FAILED, error)
            self._end_attempt(db, lease.job_number, lease.attempt, AttemptOutcome.FAILED, error, peaks)
            self._announce_end(db, lease.job_number)

    def release(self, lease: Lease) -> None:
        """Queue a running job again because its worker stops; the attempt does not count towards the limit.

        Raises: LeaseLost.
        """
        with self._writing() as db:
            self._update_leased(db, lease, self._queued_values() | {"n_released": jobs.c.n_released + 1})
            self._reset_outputs(db, lease.job_number)
            self._end_attempt(db, lease.job_number, lease.attempt, AttemptOutcome.LOST, None)
            self._add_event(db, lease.job_number, lease.attempt, "state", {"state": JobState.QUEUED})

    def free_expired_leases(self) -> list[str]:
        """Queue the jobs again whose leases have expired, or fail those without attempts left. Returns: their ids."""
        return self._free(is_over(jobs.c.lease_expires_at, self._clock(), MAX_AHEAD_S))

    def free_dead_leases(self, host: str, is_alive: Callable[[str], bool]) -> list[str]:
        """Free the leases of this host's dead processes at once. Returns: the ids of their jobs.

        is_alive: whether a process that `ProcessIdentity` describes still runs.
        """
        with self._reading() as db:
            query = select(jobs.c.lease_process).where(IS_RUNNING, jobs.c.lease_host == host).distinct()
            dead = [process for process in db.scalars(query) if process is not None and not is_alive(process)]
        return self._free(and_(jobs.c.lease_host == host, jobs.c.lease_process.in_(dead))) if dead else []

    def _is_ready(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """Return the conditions that a job may be claimed now."""
        return IS_QUEUED, or_(jobs.c.retry_at.is_(None), is_over(jobs.c.retry_at, self._clock(), MAX_AHEAD_S))

    def _update_leased(self, db: Connection, lease: Lease, values: dict[str, Any]) -> None:
        """Update a job if the lease is valid now. Raises: LeaseLost."""
        held = (
            jobs.c.number == lease.job_number,
            jobs.c.attempt == lease.attempt,
            jobs.c.lease_owner == lease.owner,
            jobs.c.lease_expires_at > self._clock(),
            IS_RUNNING,
        )
        changed: CursorResult[Any] = db.execute(update(jobs).where(*held).values(values))
        if changed.rowcount != 1:
            raise LeaseLost(f"attempt {lease.attempt} at job {lease.job_id} has lost its lease, or was canceled")

    def _is_published(self, db: Connection, lease: Lease) -> bool:
        """Return whether this attempt has published already: its commit was done, but the answer was lost."""
        done = jobs.c.number == lease.job_number, jobs.c.attempt == lease.attempt, jobs.c.state == JobState.SUCCEEDED
        return db.scalar(select(jobs.c.number).where(*done)) is not None

    def _queued_values(self) -> dict[str, Any]:
        return {"state": JobState.QUEUED, "stage": "queued", "progress": 0} | NO_LEASE

    def _free(self, condition: ColumnElement[bool]) -> list[str]:
        """Take running jobs from their workers: they are queued again, or failed if no attempt is left."""
        freed: list[str] = []
        with self._writing() as db:
            query = select(jobs.c.number, jobs.c.id, jobs.c.attempt).where(IS_RUNNING, condition).limit(SWEEP_BATCH)
            rows = db.execute(query.with_for_update(skip_locked=True) if self._is_postgresql else query).all()
            for row in rows:
                self._free_one(db, row.number, row.attempt)
                freed.append(row.id)
        return freed

    def _free_one(self, db: Connection, number: int, attempt: int) -> None:
        error = JobError(WORKER_DIED, f"the worker died, or lost its lease, in attempt {attempt}")
        self._end_attempt(db, number, attempt, AttemptOutcome.LOST, error)
        if self._n_attempts_left(db, number) > 0:
            db.execute(update(jobs).where(jobs.c.number == number).values(self._queued_values()))
            self._reset_outputs(db, number)
            self._add_event(db, number, attempt, "state", {"state": JobState.QUEUED, "error": asdict(error)})
            return
        values = {"state": JobState.FAILED, "stage": "failed", "error": asdict(error)} | self._final_values()
        db.execute(update(jobs).where(jobs.c.number == number).values(values))
        self._end_outputs(db, number, JobState.FAILED, error)
        self._announce_end(db, number)

    def _n_attempts_left(self, db: Connection, number: int) -> int:
        query = select(jobs.c.attempt - jobs.c.n_released).where(jobs.c.number == number)
        return self._limits.max_attempts - (db.scalar(query) or 0)

    def _reset_outputs(self, db: Connection, number: int) -> None:
        """Queue the outputs of a job again: what an attempt stored that did not publish is deleted."""
        values = asdict(OutputRecord(""))
        del values["name"]
        db.execute(update(outputs).where(outputs.c.job_number == number).values(values))

    def _write_output(self, db: Connection, number: int, output: OutputRecord) -> None:
        """Write one output in the place of that name, or after the others."""
        values = asdict(output) | {
            "state": output.state,
            "error": None if output.error is None else asdict(output.error),
        }
        same = outputs.c.job_number == number, outputs.c.name == output.name
        changed: CursorResult[Any] = db.execute(update(outputs).where(*same).values(values))
        if not changed.rowcount:
            last = db.scalar(select(func.max(outputs.c.position)).where(outputs.c.job_number == number))
            position = 0 if last is None else last + 1
            db.execute(insert(outputs).values(values | {"job_number": number, "position": position}))
