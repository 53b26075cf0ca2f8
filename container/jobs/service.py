"""The jobs of one server: the database and the storage, opened when they are first needed, and what works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from container.worker.messages import AnswerMessage, WorkerRequest
from container.worker.placement import Machine, place_workers
from container.worker.pool import Pool
from inference.errors import IdempotencyConflict, NotReady, Overloaded, StorageError, StorageFull, VisemeError
from inference.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from container.jobs.broker import WakeSender
    from container.jobs.input_space import InputSpace
    from container.jobs.job_queue import JobQueue
    from container.jobs.records import NewJob, QueueStatistics, Submission
    from container.jobs.repository import JobRepository
    from container.jobs.runner import JobRunner
    from container.jobs.storage import JobStorage
    from container.jobs.sweeper import Sweeper
    from container.jobs.transactions import JobLimits
    from container.jobs.webhook_sender import WebhookSender

logger = logging.getLogger("viseme.jobs")
POLL_S = 5.0  # seconds between looks at the queue: other servers and retries add to it
RESTART_S = 15.0  # seconds until the workers are started again if they could not be
LEASE_SWEEP_S = 5.0
BROKER_LOG_S = 60.0  # seconds between warnings that the broker cannot be reached
FILE_SWEEP_S = 60.0
ORPHAN_SWEEP_S = 3600.0
WEBHOOK_POLL_S = 2.0
SUBMIT_TRIES = 3
S3_SCHEME = "s3://"
REQUESTS_PER_WORKER = 1  # a job has its worker to itself


@dataclass(frozen=True)
class JobStore:
    """The database and the storage, opened."""

    engine: Engine
    repository: JobRepository
    queue: JobQueue
    storage: JobStorage
    sweeper: Sweeper
    space: InputSpace
    webhooks: WebhookSender | None


class JobPool(Protocol):
    """The workers that run jobs: `container.worker.pool.Pool`."""

    async def start(self) -> None:
        """Start every worker. Raises: NotReady."""

    def abort(self) -> None:
        """End every worker at once."""

    def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        """Run a request in a worker."""


class JobService:
    """Accepts, runs and keeps jobs. Nothing is imported, opened or started before the first job."""

    def __init__(self, settings: Settings, make_pool: Callable[[], JobPool] | None = None) -> None:
        """make_pool: makes the workers that run jobs, which are started with the first one."""
        self._settings = settings
        self._make_pool = make_pool or (lambda: make_job_pool(settings))
        self._store: JobStore | None = None
        self._opening = asyncio.Lock()
        self._pool: JobPool | None = None
        self._pool_start = asyncio.Lock()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()  # for the workers of other machines
        self._tasks: list[asyncio.Task[None]] = []
        self._is_draining = False
        self.n_running = 0

    async def start(self) -> None:
        """Continue the jobs of an earlier server, if there is a database. One that cannot be opened now is later."""
        if self._settings.database_url is None and not (self._settings.data_dir / "jobs" / "jobs.sqlite3").exists():
            return
        try:
            await self.open()
        except VisemeError as err:
            logger.error("the jobs cannot be continued yet", extra={"reason": str(err)})  # noqa: TRY400 - no traceback
            self._tasks.append(asyncio.create_task(self._open_later()))

    async def open(self) -> JobStore:
        """Return the database and the storage; the first call opens them, and starts what works on them.

        Raises: StorageError if they cannot be opened; InvalidRequest if a setting is wrong.
        """
        async with self._opening:
            if self._store is None:
                store = await asyncio.to_thread(open_store, self._settings)
                await asyncio.to_thread(store.sweeper.free_dead)
                self._store = store
                self._start_tasks(store)
            return self._store

    async def submit(self, new: NewJob, source: Path) -> Submission:
        """Store the input of a job and queue it; both are on the disk then. source: may be moved.

        Raises: Overloaded if the queue is full; StorageFull; IdempotencyConflict; StorageError.
        """
        from container.jobs.records import Submission
        from container.jobs.retry import retry
        from container.jobs.storage import INPUT

        store = await self.open()

        def write_input() -> None:
            with store.space.writing(source):
                store.storage.write(new.id, INPUT, source)

        try:
            await asyncio.to_thread(write_input)
        except VisemeError:
            await self._delete_files(store, new.id)
            raise
        try:
            submission = await retry(lambda: asyncio.to_thread(store.repository.submit, new), SUBMIT_TRIES)
        except (Overloaded, StorageFull, IdempotencyConflict):
            # After a StorageError there may be a record: the sweeper finds out.
            await self._delete_files(store, new.id)
            raise
        if submission.job.id == new.id:
            self.wake()
            return Submission(submission.job, is_new=True)  # even if the answer to the first try was lost
        await self._delete_files(store, new.id)
        return submission

    async def check_space(self, n_bytes: int) -> None:
        """Check that an input could be stored, before it arrives in vain. Raises: StorageFull, StorageError."""
        store = await self.open()
        await asyncio.to_thread(store.space.check, n_bytes)

    async def statistics(self) -> QueueStatistics | None:
        """Return the numbers of the queue; None if there have been no jobs. Raises: StorageError."""
        return None if self._store is None else await asyncio.to_thread(self._store.repository.statistics)

    @property
    def n_swept(self) -> int:
        return 0 if self._store is None else self._store.sweeper.n_swept

    def wake(self) -> None:
        """Have all runners look at the queue now: this server's, and through the broker those of other machines."""
        self.wake_runners()
        self._news.set()

    def wake_runners(self) -> None:
        """Have this server's runners look at the queue now."""
        self._wake.set()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def drain(self) -> None:
        """Claim no more jobs. Those that run may end; `stop` gives them back."""
        self._is_draining = True

    async def stop(self) -> None:
        """End the runners, which give their jobs back to the queue, and close the database."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)  # the runners notice it before their workers die
        if self._pool is not None:
            self._pool.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._store is not None and self._store.webhooks is not None:
            await asyncio.to_thread(self._store.webhooks.stop)
        if self._store is not None:
            await asyncio.to_thread(self._store.engine.dispose)

    def _start_tasks(self, store: JobStore) -> None:
        sweeps: list[tuple[float, Callable[[], object]]] = [
            (LEASE_SWEEP_S, store.sweeper.free_dead),
            (LEASE_SWEEP_S, store.sweeper.free_expired),
            (FILE_SWEEP_S, store.sweeper.sweep),
            (FILE_SWEEP_S, store.space.make_room),
            (ORPHAN_SWEEP_S, store.sweeper.delete_orphans),
        ]
        if store.webhooks is not None:
            sweeps.append((WEBHOOK_POLL_S, store.webhooks.send_due))
        self._tasks += [asyncio.create_task(self._repeat(*sweep)) for sweep in sweeps]
        self._tasks += [asyncio.create_task(self._run_jobs(store)) for _ in range(self._settings.n_job_runners)]
        if self._settings.broker_url is not None:
            self._tasks.append(asyncio.create_task(self._send_wakes(self._settings.broker_url)))

    async def _repeat(self, interval_s: float, sweep: Callable[[], object]) -> None:
        """Repeat a sweep for ever. One that fails is logged, and repeated like the others."""
        while True:
            try:
                await asyncio.to_thread(sweep)
            except VisemeError as err:
                logger.warning("a sweep of the jobs failed", extra={"reason": str(err)})
            except Exception:
                logger.exception("a sweep of the jobs failed")
            await asyncio.sleep(interval_s)

    async def _send_wakes(self, broker_url: str) -> None:
        """Wake the workers of other machines whenever there is news. Those that miss it find the job when they poll."""
        sender: WakeSender | None = None
        logged_at = -math.inf
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if sender is None:
                    sender = await asyncio.to_thread(make_wake_sender, broker_url)
                await asyncio.to_thread(sender.send)
            except VisemeError as err:
                if time.monotonic() - logged_at >= BROKER_LOG_S:
                    logged_at = time.monotonic()
                    logger.warning("the workers cannot be woken", extra={"reason": str(err)})
            except Exception:
                logger.exception("the workers cannot be woken")

    async def _run_jobs(self, store: JobStore) -> None:
        """Run one job after another."""
        runner = None
        while True:
            self._wake.clear()
            try:
                while not self._is_draining and await asyncio.to_thread(store.queue.has_ready):
                    runner = runner or await self._make_runner(store)
                    await self._run_next(runner)
                pause_s = POLL_S
            except NotReady as err:
                logger.error("the workers of jobs cannot be started", extra={"reason": str(err)})  # noqa: TRY400
                pause_s = RESTART_S
            except StorageError as err:
                logger.warning("the queue of jobs cannot be read", extra={"reason": str(err)})
                pause_s = POLL_S
            except Exception:
                logger.exception("a job could not be run")
                pause_s = POLL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    async def _run_next(self, runner: JobRunner) -> None:
        self.n_running += 1
        try:
            await runner.run_next()
        finally:
            self.n_running -= 1

    async def _make_runner(self, store: JobStore) -> JobRunner:
        """Return a runner over the workers, which the first call starts. Raises: NotReady if they cannot be."""
        from container.jobs.runner import JobRunner, RunnerOptions

        pool = await self.start_pool()
        worker = f"runner-{secrets.token_hex(8)}"
        return JobRunner(store.queue, store.storage, pool, RunnerOptions(worker, self._settings.job_deadline_s))

    async def start_pool(self) -> JobPool:
        """Return the workers that run jobs; the first call starts them. Raises: NotReady if they cannot be."""
        async with self._pool_start:
            if self._pool is None:
                pool = self._make_pool()
                await pool.start()
                self._pool = pool
            return self._pool

    async def _open_later(self) -> None:
        while self._store is None:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(VisemeError):  # logged at the first try
                await self.open()

    async def _delete_files(self, store: JobStore, job_id: str) -> None:
        """Delete the files of a submission that queued nothing. What cannot be deleted is swept later."""
        with contextlib.suppress(VisemeError):
            await asyncio.to_thread(store.storage.delete, job_id)


def make_wake_sender(broker_url: str) -> WakeSender:
    """Return what wakes the workers of other machines. Raises: InvalidRequest if Celery is not installed."""
    from container.jobs.broker import WakeSender  # imports Celery, which takes a while

    return WakeSender(broker_url)


def make_job_pool(settings: Settings) -> Pool:
    """Return the workers of jobs, not started yet."""
    own = settings.model_copy(update={"workers": settings.n_job_runners, "requests_per_worker": REQUESTS_PER_WORKER})
    model_dir = str(settings.model_dir) if settings.model_dir else None
    placements = place_workers(own, Machine.inspect(own))
    return Pool(placements, settings.n_job_runners, model_dir, settings.max_jobs_per_process)


def open_store(settings: Settings, clock: Callable[[], float] = time.time) -> JobStore:
    """Open the database and the storage that the settings name. Raises: StorageError, InvalidRequest."""
    from container.jobs.database import open_database
    from container.jobs.input_space import InputSpace
    from container.jobs.job_queue import JobQueue
    from container.jobs.repository import JobRepository
    from container.jobs.sweeper import Sweeper
    from container.jobs.transactions import DAY_S, JobLimits

    limits = JobLimits(
        settings.job_queue_size,
        settings.job_attempts,
        settings.job_days * DAY_S,
        settings.job_input_bytes,
        settings.job_min_free_bytes,
    )
    engine = open_database(settings.database_url, settings.data_dir)
    repository, queue = JobRepository(engine, limits, clock), JobQueue(engine, limits, clock)
    storage = open_storage(settings, repository.identity())
    sweeper = Sweeper(queue, repository, storage, clock)
    space = InputSpace(repository, storage, limits)
    return JobStore(engine, repository, queue, storage, sweeper, space, make_sender(settings, engine, limits, clock))


def make_sender(
    settings: Settings, engine: Engine, limits: JobLimits, clock: Callable[[], float]
) -> WebhookSender | None:
    """Return what sends webhooks; None without a secret. Raises: InvalidRequest if the secret is wrong."""
    if settings.webhook_secret is None:
        return None
    from container.jobs.delivery_queue import DeliveryQueue
    from container.jobs.webhook_sender import WebhookSender
    from container.jobs.webhooks import WebhookSigner
    from inference.media.outbound import OutboundClient, UrlRules

    client = OutboundClient(UrlRules(settings.allowed_url_hosts))
    headers = WebhookSigner(settings.webhook_secret).headers
    return WebhookSender(DeliveryQueue(engine, limits, clock), client, headers, clock)


def open_storage(settings: Settings, database: str) -> JobStorage:
    """Return the storage that the settings name.

    database: the identity of the database, under which its files lie: the sweep of files without records must not
    reach those of another one. Raises: StorageError, InvalidRequest.
    """
    from container.jobs.s3_storage import S3Storage
    from container.jobs.storage import FolderStorage

    place = settings.job_storage
    if place is None or not place.startswith(S3_SCHEME):
        return FolderStorage((Path(place) if place else settings.data_dir / "jobs" / "files") / database)
    from inference.media.s3.client import s3_client

    bucket, _, prefix = place.removeprefix(S3_SCHEME).partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    return S3Storage(bucket, f"{prefix}{database}/", lambda: s3_client(settings.s3_endpoint_url))
