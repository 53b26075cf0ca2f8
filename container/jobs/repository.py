"""The records of jobs, as those who submit and watch them see them.

Clients take turns: each job has one when it is queued, after the client's last job and not before the turn of the job
that was claimed last, so that a client's first job waits for at most one job of each other client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from container.jobs.records import (
    FINAL_STATES,
    AttemptOutcome,
    JobEvent,
    JobRecord,
    JobState,
    NewJob,
    OutputRecord,
    QueueStatistics,
    Submission,
)
from container.jobs.rows import event_of, job_of, load_job
from container.jobs.schema import (
    HAS_SPARE_INPUT,
    IS_QUEUED,
    IS_RUNNING,
    IS_UNSWEPT,
    attempts,
    events,
    identities,
    input_usage,
    jobs,
    outputs,
    turns,
)
from container.jobs.submission_statements import FIND_ID, FIND_ID_OR_KEY, INSERT_EVENT, SubmissionStatements
from container.jobs.transactions import CLOCK_ROW, JobLimits, JobTransactions, of_job
from inference.errors import IdempotencyConflict, Overloaded, StorageError, StorageFull

COUNT_AGE_S = 1.0  # seconds that a count of the queued jobs serves to bound the queue
SWEEP_BATCH = 100  # jobs per page of a sweep


class AlreadyQueued(Exception):
    """Another process has queued the same job."""


class JobRepository(JobTransactions):
    """The records of jobs. Any method raises StorageError if the database cannot be reached."""

    def __init__(self, engine: Engine, limits: JobLimits | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(engine, limits, clock)
        self._n_queued, self._counted_at = 0, float("-inf")
        self._statements = SubmissionStatements(self._upsert)

    def submit(self, new: NewJob) -> Submission:
        """Queue a job, or return the one that the same owner submitted with the same key before.

        Raises: Overloaded if the queue is full, StorageFull if the inputs would have too many bytes;
        IdempotencyConflict if the earlier job had another input.
        """
        try:
            with self._writing() as db:
                if (earlier := self._find_same(db, new)) is not None:
                    return Submission(earlier, is_new=False)
                self._check_queue(db)
                job = self._insert(db, new)
        except AlreadyQueued:  # by another process, since this one looked
            with self._reading() as db:
                if (earlier := self._find_same(db, new)) is None:
                    raise StorageError("the job was queued by another process, and deleted at once") from None
                return Submission(earlier, is_new=False)
        self._n_queued += 1
        return Submission(job, is_new=True)

    def find(self, job_id: str, owner: str | None = None) -> JobRecord:
        """Return a job with its outputs and attempts. owner: the only one whose jobs are found, if given.

        Raises: JobNotFound.
        """
        with self._reading() as db:
            return load_job(db, of_job(job_id, owner))

    def list_page(
        self, limit: int, before: int | None = None, owner: str | None = None, state: JobState | None = None
    ) -> list[JobRecord]:
        """Return jobs from the newest to the oldest, without outputs and attempts. before: only lower numbers."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        for column, value in ((jobs.c.owner, owner), (jobs.c.state, state)):
            query = query if value is None else query.where(column == value)
        with self._reading() as db:
            return [
                job_of(row)
                for row in db.execute(query if before is None else query.where(jobs.c.number < before)).mappings()
            ]

    def list_of_route(
        self,
        route: str,
        owner: str,
        limit: int,
        before: int | None = None,
        states: Collection[JobState] = (),
        ids: Collection[str] = (),
    ) -> list[JobRecord]:
        """Return jobs of one route as `list_page` does. states, ids: only those, if any are given."""
        query = select(jobs).where(jobs.c.owner == owner, jobs.c.route == route)
        if states:
            query = query.where(jobs.c.state.in_(states))
        if ids:
            query = query.where(jobs.c.id.in_(ids))
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._reading() as db:
            return [job_of(row) for row in db.execute(query.order_by(jobs.c.number.desc()).limit(limit)).mappings()]

    def events_after(self, job_number: int, sequence: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return the events of a job after the one with this sequence number, in order."""
        query = select(events).where(events.c.job_number == job_number, events.c.sequence > sequence)
        with self._reading() as db:
            return [event_of(row) for row in db.execute(query.order_by(events.c.sequence).limit(limit)).mappings()]

    def statistics(self) -> QueueStatistics:
        """Return the numbers of the queue."""
        queued = select(func.count(), func.min(jobs.c.created_at)).where(IS_QUEUED)
        running = select(func.count()).where(IS_RUNNING)
        with self._reading() as db:
            n_queued, oldest = db.execute(queued).one()
            n_running, n_attempts = db.scalar(running) or 0, db.scalar(select(func.count()).select_from(attempts)) or 0
            n_input_bytes = db.scalar(select(input_usage.c.n_bytes)) or 0
        wait_s = max(self._clock() - oldest, 0.0) if oldest else 0.0
        return QueueStatistics(n_queued, n_running, n_attempts, wait_s, n_input_bytes)

    def cancel(self, job_id: str, owner: str | None = None) -> JobRecord:
        """Cancel a job; its worker finds out when it next uses its lease. A finished job stays as it is.

        Raises: JobNotFound.
        """
        with self._writing() as db:
            values = {"state": JobState.CANCELED, "stage": "canceled"} | self._final_values()
            unfinished = and_(of_job(job_id, owner), jobs.c.state.not_in(FINAL_STATES))
            changed = update(jobs).where(unfinished).values(values).returning(jobs.c.number, jobs.c.attempt)
            if (row := db.execute(changed).one_or_none()) is not None:
                self._end_outputs(db, row.number, JobState.CANCELED, None)
                self._end_attempt(db, row.number, row.attempt, AttemptOutcome.CANCELED, None)
                self._announce_end(db, row.number)
            return load_job(db, of_job(job_id, owner))

    def unswept(self) -> list[JobRecord]:
        """Return finished jobs of which files of lost attempts may be left."""
        query = select(jobs).where(IS_UNSWEPT).order_by(jobs.c.number).limit(SWEEP_BATCH)
        with self._reading() as db:
            return [job_of(row) for row in db.execute(query).mappings()]

    def mark_swept(self, job_number: int) -> None:
        """Record that no files of lost attempts are left."""
        with self._writing() as db:
            db.execute(update(jobs).where(jobs.c.number == job_number).values(swept_at=self._clock()))

    def expired(self) -> list[JobRecord]:
        """Return finished jobs that are to be deleted."""
        query = select(jobs).where(jobs.c.expires_at <= self._clock()).order_by(jobs.c.expires_at).limit(SWEEP_BATCH)
        with self._reading() as db:
            return [job_of(row) for row in db.execute(query).mappings()]

    def delete(self, job_number: int) -> None:
        """Delete the record of a finished job; its files are deleted before."""
        finished = jobs.c.number == job_number, jobs.c.state.in_(FINAL_STATES)
        with self._writing() as db:
            gone = delete(jobs).where(*finished).returning(jobs.c.input_bytes, jobs.c.input_deleted_at)
            row = db.execute(gone).one_or_none()
            if row is not None and row.input_deleted_at is None:
                self._release(db, row.input_bytes)

    def input_bytes(self) -> int:
        """Return the bytes of the inputs in storage."""
        with self._reading() as db:
            return db.scalar(select(input_usage.c.n_bytes)) or 0

    def check_input_bytes(self, n_bytes: int) -> None:
        """Check that an input of this size could be added now. Raises: StorageFull."""
        self._check_fits(self.input_bytes(), n_bytes)

    def finished_inputs(self) -> list[JobRecord]:
        """Return finished jobs whose inputs are in storage, those that ended first before the others."""
        query = select(jobs).where(HAS_SPARE_INPUT).order_by(jobs.c.finished_at).limit(SWEEP_BATCH)
        with self._reading() as db:
            return [job_of(row) for row in db.execute(query).mappings()]

    def mark_input_deleted(self, job_number: int) -> None:
        """Record that the input of a finished job is not in storage any more."""
        kept = jobs.c.number == job_number, HAS_SPARE_INPUT
        with self._writing() as db:
            marked = update(jobs).where(*kept).values(input_deleted_at=self._clock()).returning(jobs.c.input_bytes)
            n_bytes = db.execute(marked).scalar_one_or_none()
            if n_bytes is not None:
                self._release(db, n_bytes)

    def forget_turns(self) -> int:
        """Delete the turns that change nothing: of clients none of whose jobs waits. Returns: how many there were.

        Without it there would be a row for each address that has ever submitted a job.
        """
        claimed = select(turns.c.turn).where(turns.c.client == CLOCK_ROW).scalar_subquery()
        with self._writing() as db:
            spent = delete(turns).where(turns.c.client != CLOCK_ROW, turns.c.turn <= claimed)
            deleted: CursorResult[Any] = db.execute(spent)
            return deleted.rowcount

    def identity(self) -> str:
        """Return the identity of the database: 32 hexadecimal digits, the same as long as it exists."""
        with self._reading() as db:
            identity: str = db.execute(select(identities.c.id)).scalar_one()
            return identity

    def url_key(self) -> bytes:
        """Return the key that signs the URLs of outputs: 32 bytes, the same as long as the database exists."""
        with self._reading() as db:
            return self._url_key(db)

    def known_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are of jobs."""
        with self._reading() as db:
            return set(db.scalars(select(jobs.c.id).where(jobs.c.id.in_(ids))))

    def _find_same(self, db: Connection, new: NewJob) -> JobRecord | None:
        """Return the job with the id, or with the owner's key. Raises: IdempotencyConflict."""
        same = {"id": new.id}
        if new.idempotency_key is not None:
            same |= {"owner": new.owner, "idempotency_key": new.idempotency_key}
        found = db.execute(FIND_ID if new.idempotency_key is None else FIND_ID_OR_KEY, same).one_or_none()
        if found is None:
            return None
        if found.request_sha256 != new.request_sha256:
            raise IdempotencyConflict(
                f"Idempotency-Key {new.idempotency_key!r}: another request was submitted with it; expected a new key"
            )
        return load_job(db, jobs.c.number == found.number)

    def _check_queue(self, db: Connection) -> None:
        """Raise Overloaded if the queue is full. The count may be a second old, so other processes may exceed it."""
        now = self._clock()
        if not now - COUNT_AGE_S < self._counted_at <= now:
            self._n_queued = db.scalar(select(func.count()).where(IS_QUEUED)) or 0
            self._counted_at = now
        if self._n_queued >= self._limits.max_queued:
            raise Overloaded(f"{self._n_queued} jobs are queued, at most {self._limits.max_queued}; try again later")

    def _occupy(self, db: Connection, n_bytes: int) -> None:
        """Count the bytes of an input. Raises: StorageFull if they are too many, whatever other servers do now."""
        self._check_fits(0, n_bytes)
        values = {"n_bytes": n_bytes, "max_bytes": self._limits.max_input_bytes}
        if db.execute(self._statements.add_input_bytes, values).scalar_one_or_none() is None:
            raise self._storage_full(db.scalar(select(input_usage.c.n_bytes)) or 0, n_bytes)

    def _release(self, db: Connection, n_bytes: int) -> None:
        db.execute(update(input_usage).values(n_bytes=input_usage.c.n_bytes - n_bytes))

    def _check_fits(self, n_stored: int, n_bytes: int) -> None:
        if n_stored + n_bytes > self._limits.max_input_bytes:
            raise self._storage_full(n_stored, n_bytes)

    def _storage_full(self, n_stored: int, n_bytes: int) -> StorageFull:
        limit = self._limits.max_input_bytes
        return StorageFull(
            f"the inputs of jobs have {n_stored} bytes, at most {limit}: another {n_bytes} do not fit; try again later"
        )

    def _insert(self, db: Connection, new: NewJob) -> JobRecord:
        """Record a new job. Few statements: each costs about as much as writing the job to the disk.

        Raises: AlreadyQueued if another process has queued the same by now; StorageFull.
        """
        now = self._clock()
        row = {
            "id": new.id,
            "owner": new.owner,
            "client": new.client,
            "state": JobState.QUEUED,
            "stage": "queued",
            "turn": self._next_turn(db, new.client),
            "route": new.route,
            "headers": new.headers,
            "task": new.task,
            "accept": new.accept,
            "request_sha256": new.request_sha256,
            "input_bytes": new.input_bytes,
            "request_id": new.request_id,
            "idempotency_key": new.idempotency_key,
            "webhook_url": new.webhook_url,
            "webhook_events": list(new.webhook_events),
            "extra": new.extra,
            "created_at": now,
        }
        added = db.execute(self._statements.insert_job, row).mappings().one_or_none()
        if added is None:
            raise AlreadyQueued
        job = job_of(added, tuple(OutputRecord(name) for name in new.outputs))
        self._insert_parts(db, job)
        self._occupy(db, new.input_bytes)
        return job

    def _insert_parts(self, db: Connection, job: JobRecord) -> None:
        """Record the expected outputs of a new job, and its first event."""
        expected = [
            {"job_number": job.number, "position": i, "name": output.name, "state": output.state, "details": {}}
            for i, output in enumerate(job.outputs)
        ]
        if expected:
            db.execute(insert(outputs), expected)
        data = {"state": JobState.QUEUED}
        first = {"job_number": job.number, "sequence": 1, "attempt": 0, "kind": "state", "data": data}
        db.execute(INSERT_EVENT, first | {"created_at": job.created_at})

    def _next_turn(self, db: Connection, client: str) -> int:
        """Return the turn of a client's new job, and record it."""
        turn: int = db.execute(self._statements.take_turn, {"client": client}).scalar_one()
        return turn
