"""The pool of worker processes, kept alive, with a bounded number of requests waiting for them."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

from container.worker.child import run_worker
from container.worker.messages import (
    AnswerMessage,
    DeadlineChanged,
    Done,
    Failed,
    Job,
    LoadFailed,
    Part,
    Ready,
    ServerMessage,
    Stop,
    WorkerMessage,
)
from inference.errors import DeadlineExceeded, NotReady, Overloaded, VisemeError, WorkerDied

logger = logging.getLogger("viseme.pool")
DIED_MESSAGE = "the worker process died while it ran the request; the request was not retried"
# Seconds for a worker to stop a canceled job before it is killed: it checks about once per second of video, and on a
# busy machine reading that takes seconds. Starting another worker takes longer still.
CANCEL_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0  # seconds for an idle worker to exit by itself
RESTART_DELAYS_S = (0.1, 1.0, 5.0, 15.0)  # seconds before the first, second, ... restart in a row
SPAWN = multiprocessing.get_context("spawn")  # never forked: torch and its threads do not survive a fork


class Worker:
    """One worker process and the pipe to it."""

    def __init__(self, model_dir: str | None) -> None:
        self._model_dir = model_dir
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="worker-pipe")
        self._pending: asyncio.Future[WorkerMessage] | None = None
        self.health: dict[str, Any] = {}
        self.is_queued = False  # in the pool's queue of idle workers
        self.generation = 0  # number of processes started so far

    async def start(self) -> None:
        """Spawn the process and wait until its models are loaded.

        Raises: NotReady, with the reason, if they could not be loaded.
        """
        self.generation += 1
        self._pipe, worker_end = SPAWN.Pipe()
        self.canceled = SPAWN.Event()
        self.process = SPAWN.Process(
            target=run_worker, args=(worker_end, self.canceled, self._model_dir), name="viseme-worker"
        )
        self._pending = None
        self.process.start()
        worker_end.close()
        message = await self.receive()
        if not isinstance(message, Ready):
            self.process.join()
            reason = message.reason if isinstance(message, LoadFailed) else message
            raise NotReady(f"the models could not be loaded: {reason}")
        self.health = message.health

    async def receive(self) -> WorkerMessage:
        """Return the next message. Raises: WorkerDied.

        A canceled call loses nothing: the next call returns the message that it waited for.
        """
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.run_in_executor(self._thread, receive_from, self._pipe)
        await asyncio.wait({self._pending})
        pending, self._pending = self._pending, None
        try:
            return pending.result()
        except (EOFError, OSError) as err:
            raise WorkerDied(DIED_MESSAGE) from err

    def send(self, message: ServerMessage) -> None:
        """Send a message. Raises: WorkerDied."""
        try:
            self._pipe.send(message)
        except OSError as err:
            raise WorkerDied("the worker process died before it received the request") from err

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """End the process at once, and free its resources."""
        self.process.kill()
        self.process.join()

    async def close_pipe(self) -> None:
        """Close the pipe to a process that has ended; `is_alive` and `kill` still work afterwards."""
        if (pending := self._pending) is not None:  # the thread is still reading: it reaches the pipe's end at once
            await asyncio.wait({pending})
            pending.exception()  # retrieved, so that asyncio does not warn about it
        self._pipe.close()

    async def stop(self) -> None:
        """Stop an idle worker."""
        if self.is_alive:
            try:
                self.send(Stop())
            except WorkerDied:
                logger.info("a worker had died before it was stopped")
            await asyncio.to_thread(self.process.join, STOP_TIMEOUT_S)
        self.kill()
        await self.close_pipe()
        self._thread.shutdown(wait=False)


def receive_from(pipe: Connection) -> WorkerMessage:
    message: WorkerMessage = pipe.recv()
    return message


class Pool:
    """Worker processes, and the admission of requests: at most `queue_size` wait."""

    def __init__(self, n_workers: int, queue_size: int, model_dir: str | None) -> None:
        self._workers = [Worker(model_dir) for _ in range(n_workers)]
        self._idle: asyncio.Queue[Worker | None] = asyncio.Queue()
        self._is_aborted = False
        self._capacity = queue_size + n_workers
        self._supervisors: list[asyncio.Task[None]] = []
        self.n_in_flight = 0  # requests waiting or running
        self.n_restarts = 0

    async def start(self) -> None:
        """Start every worker. Raises: NotReady if one cannot load its models; all are ended then."""
        try:
            for worker in self._workers:
                await worker.start()
                self._release(worker)
        except BaseException:
            self.abort()  # otherwise the exit would wait for those that started
            raise
        self._supervisors = [asyncio.create_task(self._supervise(worker)) for worker in self._workers]
        for supervisor in self._supervisors:
            supervisor.add_done_callback(log_failed_supervisor)

    @property
    def is_ready(self) -> bool:
        return bool(self._supervisors) and any(worker.health and worker.is_alive for worker in self._workers)

    @property
    def health(self) -> dict[str, Any]:
        return next((worker.health for worker in self._workers if worker.health), {})

    def check_capacity(self) -> None:
        """Raise Overloaded if all places for requests are occupied."""
        if self.n_in_flight >= self._capacity:
            raise Overloaded(f"{self.n_in_flight} requests are in progress already; try again in a few seconds")

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Occupy one of the places for requests.

        Raises: Overloaded if all are occupied, NotReady if the pool was aborted.
        """
        if self._is_aborted:  # after `abort` nothing wakes those that wait for a worker
            raise NotReady("the server is going down; try another one")
        self.check_capacity()
        self.n_in_flight += 1
        try:
            yield
        finally:
            self.n_in_flight -= 1

    async def run(self, job: Job) -> AsyncGenerator[AnswerMessage]:
        """Run a job on the next idle worker. Yields: any number of `Part`, then `Done` or `Failed`.

        The job's deadline applies until the worker sends another one after parsing the request.
        Closing the iterator early, when the caller disconnects, cancels the job.
        Raises: DeadlineExceeded, NotReady, WorkerDied.
        """
        deadline = job.deadline
        worker = await self._acquire(deadline)
        generation, finished = worker.generation, False
        try:
            worker.canceled.clear()
            worker.send(job)
            while not finished:
                message = await self._receive(worker, generation, deadline)
                if isinstance(message, DeadlineChanged):
                    deadline = message.deadline
                    continue
                assert isinstance(message, AnswerMessage)
                finished = not isinstance(message, Part)
                yield message
        except WorkerDied:
            if worker.generation == generation:
                worker.health = {}  # not to be acquired; its supervisor restarts it and then releases it
                worker.process.kill()
            raise
        finally:
            is_same = worker.generation == generation and worker.health  # otherwise its supervisor takes over
            if is_same and finished:
                self._release(worker)
            elif is_same:
                await asyncio.shield(asyncio.create_task(self._cancel(worker)))

    def _release(self, worker: Worker) -> None:
        """Make the worker available to the next request; once, however often it is called."""
        if not worker.is_queued:
            worker.is_queued = True
            self._idle.put_nowait(worker)

    async def _acquire(self, deadline: float) -> Worker:
        while True:
            try:
                worker = await asyncio.wait_for(self._idle.get(), max(deadline - time.monotonic(), 0))
            except TimeoutError as err:
                raise DeadlineExceeded("the deadline passed before a worker was free") from err
            if worker is None or self._is_aborted:
                raise NotReady("the server is going down; try another one")
            worker.is_queued = False
            if worker.health and worker.is_alive:  # otherwise it died idle, and its supervisor releases it again
                return worker

    async def _receive(self, worker: Worker, generation: int, deadline: float) -> WorkerMessage:
        if worker.generation != generation:  # restarted between two messages: the next one is of another request
            raise WorkerDied(DIED_MESSAGE)
        try:
            return await asyncio.wait_for(worker.receive(), max(deadline - time.monotonic(), 0))
        except TimeoutError as err:
            raise DeadlineExceeded("the deadline passed while the request ran") from err

    async def _cancel(self, worker: Worker) -> None:
        """Have the worker drop its job; kill it if it does not."""
        worker.canceled.set()
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while not isinstance(await worker.receive(), (Done, Failed)):
                    pass
        except (TimeoutError, WorkerDied):
            logger.warning("a worker did not drop a canceled request and is replaced")
            worker.process.kill()
            return
        self._release(worker)

    async def _supervise(self, worker: Worker) -> None:
        """Restart the worker whenever its process ends."""
        n_failed = 0
        while True:
            has_run = worker.process.pid is not None
            if has_run:
                await wait_for_exit(worker)
            worker.health = {}  # before a thread joins it: until then `is_alive` is still true
            if has_run:
                await asyncio.to_thread(worker.process.join)
            logger.error("a worker died", extra={"exitcode": worker.process.exitcode})
            await worker.close_pipe()
            self.n_restarts += 1
            await asyncio.sleep(RESTART_DELAYS_S[min(n_failed, len(RESTART_DELAYS_S) - 1)])
            try:
                await worker.start()
            except (VisemeError, OSError) as err:  # OSError: the process could not be created
                n_failed += 1
                logger.warning("a worker could not be restarted", extra={"reason": str(err)})
                continue
            n_failed = 0
            self._release(worker)

    def abort(self) -> None:
        """End every worker for good: running requests fail with WorkerDied, waiting ones with NotReady."""
        self._is_aborted = True
        for _ in range(self.n_in_flight):
            self._idle.put_nowait(None)
        for supervisor in self._supervisors:
            supervisor.cancel()
        for worker in self._workers:
            if worker.generation:  # otherwise it was never started: the signal came while others loaded
                worker.process.kill()

    async def stop(self) -> None:
        """Stop every worker; none may be running a request."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))


def log_failed_supervisor(supervisor: asyncio.Task[None]) -> None:
    """Log a supervisor that ended without being canceled: its worker would otherwise be missing without a trace."""
    if not supervisor.cancelled() and supervisor.exception() is not None:
        logger.critical("the supervisor of a worker failed", exc_info=supervisor.exception())


async def wait_for_exit(worker: Worker) -> None:
    """Return when the worker's process has ended."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    sentinel = worker.process.sentinel

    def on_exit() -> None:
        loop.remove_reader(sentinel)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(sentinel, on_exit)
    try:
        await ended
    finally:
        loop.remove_reader(sentinel)
