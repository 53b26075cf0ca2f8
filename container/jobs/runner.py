"""The runner: takes jobs from the queue, runs them in worker processes, and publishes what they make."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from container.jobs.job_queue import RENEWAL_S, JobQueue
from container.jobs.processes import ProcessIdentity
from container.jobs.records import JobError, JobRecord, JobState, Lease, OutputRecord
from container.jobs.retry import retry
from container.jobs.storage import INPUT, JobStorage, disk_errors, log_key
from container.jobs.transactions import NOT_MEASURED, Peaks
from container.worker.messages import (
    LOG_NAME,
    AnswerMessage,
    Failed,
    JobDone,
    JobOutput,
    Progress,
    RequestParsed,
    WordsRead,
    WorkerRequest,
)
from inference.error_responses import Failure, failure_of
from inference.errors import LeaseLost, StorageError, VisemeError, WorkerDied
from inference.locked_folders import locked_folder

logger = logging.getLogger("viseme.jobs")
# Failures that may pass: seconds until the first, second, ... try after one.
RETRIED = frozenset({"overloaded", "not_ready", "storage_unavailable", "out_of_memory", "worker_died"})
RETRY_DELAYS_S = (5.0, 30.0, 120.0)
LOG_INTERVAL_S = 10.0  # seconds between two times that the log of a running attempt is stored
LOG_COPY_NAME = "log-copy.txt"


@contextlib.contextmanager
def job_folder() -> Iterator[Path]:
    """Yield a folder for the files of an attempt. Raises: Overloaded if the disk refuses it."""
    with contextlib.ExitStack() as opened:
        with disk_errors():
            folder = opened.enter_context(locked_folder("viseme-job-"))
        yield folder


class RequestPool(Protocol):
    """What runs requests: `container.worker.pool.Pool`."""

    def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        """Run a request in a worker."""


@dataclass(frozen=True)
class RunnerOptions:
    """worker: a name unique to the runner. deadline_s: seconds of one attempt."""

    worker: str
    deadline_s: float


class JobRunner:
    """Runs one job at a time. Several of them may share a pool."""

    def __init__(
        self,
        queue: JobQueue,
        storage: JobStorage,
        pool: RequestPool,
        options: RunnerOptions,
        process: ProcessIdentity | None = None,
    ) -> None:
        self._queue, self._storage, self._pool, self._options = queue, storage, pool, options
        self._process = process or ProcessIdentity.current()

    async def run_next(self) -> bool:
        """Claim a job and run it. Returns: whether there was one. Raises: StorageError if the queue cannot be read."""
        claimed = await asyncio.to_thread(self._queue.claim, self._options.worker, self._process)
        if claimed is None:
            return False
        lease, job = claimed
        extra = {"job": job.id, "attempt": lease.attempt, "request_id": job.request_id}
        logger.info("job started", extra=extra)
        try:
            state = await self._run_leased(lease, job)
        except LeaseLost as err:
            if not await self._is_published(lease):
                logger.warning("job lost", extra=extra | {"reason": str(err)})
                await self._drop_files(lease)
                return True
            state = JobState.SUCCEEDED
        logger.info("job ended", extra=extra | {"state": state})
        return True

    async def _run_leased(self, lease: Lease, job: JobRecord) -> JobState:
        """Run a job while another task renews its lease; whichever ends first ends the other. Raises: LeaseLost."""
        work = asyncio.create_task(self._run(lease, job))
        renewal = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                renewal.result()  # raises LeaseLost
            return await work
        except asyncio.CancelledError:  # this process ends: another worker goes on at once
            await self._release(lease, work)
            raise
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)

    async def _renew(self, lease: Lease) -> None:
        """Renew the lease until it is lost; a database that cannot be reached is asked again. Raises: LeaseLost."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            await retry(lambda: asyncio.to_thread(self._queue.renew, lease))

    async def _release(self, lease: Lease, work: asyncio.Task[JobState]) -> None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        with contextlib.suppress(LeaseLost, StorageError):  # then it runs again when its lease has expired
            await asyncio.to_thread(self._queue.release, lease)
            logger.info("job released", extra={"job": lease.job_id, "attempt": lease.attempt})

    async def _run(self, lease: Lease, job: JobRecord) -> JobState:
        """Run an attempt to its end, and record it. Raises: LeaseLost."""
        peaks = NOT_MEASURED
        try:
            with job_folder() as folder:
                try:
                    last = await self._run_in_pool(lease, job, folder)
                finally:
                    await self._store_log(lease, folder)
                if isinstance(last, JobDone):
                    return await self._publish(lease, last)
                failure, peaks = last.failure, (last.ram_peak_mib, last.vram_peak_mib)
        except LeaseLost:
            raise
        except Exception as err:
            failure = failure_of(err)
            if isinstance(err, WorkerDied):  # whose message is about requests, which are not run again
                failure = replace(failure, message=f"the worker process died in attempt {lease.attempt}")
            if not isinstance(err, VisemeError):
                logger.exception("unexpected error", extra={"job": job.id})
        return await self._fail(lease, failure, peaks)

    async def _run_in_pool(self, lease: Lease, job: JobRecord, folder: Path) -> JobDone | Failed:
        """Run the request in a worker and record what it reports. Raises: LeaseLost; the errors of the pool."""
        body = folder / "body"
        await asyncio.to_thread(self._fetch_input, job.id, body)
        deadline = time.monotonic() + self._options.deadline_s
        request = WorkerRequest(
            job.route,
            job.headers,
            body,
            job.request_id or job.id,
            deadline=deadline,
            sync_deadline=deadline,
            is_job=True,
        )
        await asyncio.to_thread(self._queue.start, lease)
        last: tuple[str, int] | None = None  # progress: each that is recorded is an event of the job
        async with self._keeping_log(lease, folder), contextlib.aclosing(self._pool.run(request)) as messages:
            async for message in messages:
                if isinstance(message, JobDone | Failed):
                    return message
                if isinstance(message, Progress):
                    before, last = last, (message.stage, percent_of(message))
                    if last == before:
                        continue
                await self._report(lease, message)
        raise AssertionError("the pool ended a request without its last message")

    def _fetch_input(self, job_id: str, body: Path) -> None:
        with self._storage.read(job_id, INPUT) as path, disk_errors():
            shutil.copyfile(path, body)

    async def _report(self, lease: Lease, message: AnswerMessage) -> None:
        """Record a report of the worker. Raises: LeaseLost. A database that cannot be reached costs only the report."""
        try:
            if isinstance(message, RequestParsed):
                await asyncio.to_thread(self._queue.begin_outputs, lease, message.task, message.outputs)
            elif isinstance(message, Progress):
                await asyncio.to_thread(self._queue.report_progress, lease, message.stage, percent_of(message))
            elif isinstance(message, WordsRead):
                await asyncio.to_thread(self._queue.add_words, lease, message.words)
        except StorageError as err:
            logger.warning("progress was not recorded", extra={"job": lease.job_id, "reason": str(err)})

    async def _publish(self, lease: Lease, done: JobDone) -> JobState:
        """Store the outputs, and record the end of the job. Raises: LeaseLost; the errors of the storage."""
        written = []
        for output in done.outputs:
            record = await asyncio.to_thread(self._store, lease, output)
            await retry(lambda record=record: asyncio.to_thread(self._queue.record_output, lease, record))  # type: ignore[misc]
            written.append(record)
        peaks = done.ram_peak_mib, done.vram_peak_mib
        await retry(lambda: asyncio.to_thread(self._queue.publish, lease, done.result, written, peaks))
        return JobState.SUCCEEDED

    def _store(self, lease: Lease, output: JobOutput) -> OutputRecord:
        stored = self._storage.write(lease.job_id, f"{lease.prefix}/{output.name}", output.path)
        return OutputRecord(
            output.name,
            JobState.SUCCEEDED,
            stored.key,
            output.content_type,
            stored.n_bytes,
            stored.sha256,
            output.s3_bucket,
            output.s3_key,
            output.url,
            output.details,
        )

    async def _fail(self, lease: Lease, failure: Failure, peaks: Peaks) -> JobState:
        error = JobError(failure.code, failure.message, failure.status)
        delay_s = RETRY_DELAYS_S[min(lease.attempt, len(RETRY_DELAYS_S)) - 1] if failure.code in RETRIED else None
        await retry(lambda: asyncio.to_thread(self._queue.fail, lease, error, retry_after_s=delay_s, peaks=peaks))
        return JobState.FAILED

    @contextlib.asynccontextmanager
    async def _keeping_log(self, lease: Lease, folder: Path) -> AsyncIterator[None]:
        """Store the log now and then inside of the block, for those who watch, and in case this process is killed."""
        ended = asyncio.Event()
        keeping = asyncio.create_task(self._keep_log(lease, folder, ended))
        try:
            yield
        finally:
            ended.set()
            await keeping

    async def _keep_log(self, lease: Lease, folder: Path, ended: asyncio.Event) -> None:
        path, n_stored = folder / LOG_NAME, 0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LOG_INTERVAL_S)
                return
            n_bytes = path.stat().st_size if path.exists() else 0
            if n_bytes > n_stored:
                n_stored = n_bytes
                await self._store_log(lease, folder)

    async def _store_log(self, lease: Lease, folder: Path) -> None:
        """Store the log of an attempt as it is now; one that cannot be stored does not fail the job."""
        path = folder / LOG_NAME
        if not path.exists():
            return

        def store() -> None:
            copy = folder / LOG_COPY_NAME  # the storage may move it, and the worker still writes to the log
            with disk_errors():
                shutil.copyfile(path, copy)
            self._storage.write(lease.job_id, log_key(lease.attempt), copy)

        try:
            await asyncio.to_thread(store)
        except VisemeError as err:
            logger.warning("the log of a job was not stored", extra={"job": lease.job_id, "reason": str(err)})

    async def _is_published(self, lease: Lease) -> bool:
        """Return whether the attempt has published: a renewal between the commit and its answer finds no lease.

        Raises: StorageError if the database cannot be reached; the files are then left to the sweeper.
        """
        return await retry(lambda: asyncio.to_thread(self._queue.is_published, lease))

    async def _drop_files(self, lease: Lease) -> None:
        """Delete the files of a lost attempt. What cannot be deleted is swept when the job has ended."""
        with contextlib.suppress(VisemeError):
            await asyncio.to_thread(self._storage.delete_attempt, lease.job_id, lease.attempt)


def percent_of(progress: Progress) -> int:
    return int(progress.share * 100)
