"""Worker processes, kept alive; a bounded number of requests waiting for them."""

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

from container.worker_main import Job, run_worker
from inference.errors import DeadlineExceeded, NotReady, Overloaded, VisemeError, WorkerDied

LOG = logging.getLogger("viseme.pool")
DIED = "the worker process died while it ran the request; it was not run again"
# For a worker to heed a cancel before it is killed: it looks up about every second of video, and on a busy
# machine reads that for seconds. To start another takes longer still.
GRACE_S = 10.0
STOP_S = 3.0  # for an idle worker to end by itself
RESTART_S = (0.1, 1.0, 5.0, 15.0)  # waits before the first, second, ... restart in a row
SPAWN = multiprocessing.get_context("spawn")  # never forked: torch and its threads do not survive a fork


class Worker:
    """One worker process and the pipe to it."""

    def __init__(self, model_dir: str | None) -> None:
        self._model_dir = model_dir
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="worker-pipe")
        self._pending: asyncio.Future[tuple[Any, ...]] | None = None
        self.health: dict[str, Any] = {}
        self.is_offered = False  # stands among the idle ones
        self.life = 0  # counts its processes

    async def start(self) -> None:
        """Spawn the process and wait until its models are loaded.

        Raises: NotReady with the reason why they could not be.
        """
        self.life += 1
        self._pipe, theirs = SPAWN.Pipe()
        self.canceled = SPAWN.Event()
        self.process = SPAWN.Process(
            target=run_worker, args=(theirs, self.canceled, self._model_dir), name="viseme-worker"
        )
        self._pending = None
        self.process.start()
        theirs.close()
        kind, value = await self.receive()
        if kind != "ready":
            self.process.join()
            raise NotReady(f"the models could not be loaded: {value}")
        self.health = value

    async def receive(self) -> tuple[Any, ...]:
        """The next message. Raises: WorkerDied.

        A call that is canceled loses nothing: the next one gets the message that it waited for.
        """
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.run_in_executor(self._thread, receive_from, self._pipe)
        await asyncio.wait({self._pending})
        pending, self._pending = self._pending, None
        try:
            return pending.result()
        except (EOFError, OSError) as err:
            raise WorkerDied(DIED) from err

    def send(self, *message: Any) -> None:
        """Raises: WorkerDied."""
        try:
            self._pipe.send(message)
        except OSError as err:
            raise WorkerDied("the worker process died before it took the request") from err

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """End the process at once, and free what it held."""
        self.process.kill()
        self.process.join()

    async def release(self) -> None:
        """Give back the pipe to a process that has ended; `is_alive` and `kill` go on working."""
        if (pending := self._pending) is not None:  # the thread still reads: it meets the pipe's end at once
            await asyncio.wait({pending})
            pending.exception()  # heard, so that asyncio does not complain that nobody asked for it
        self._pipe.close()

    async def stop(self) -> None:
        """Let an idle worker go."""
        if self.is_alive:
            try:
                self.send("stop")
            except WorkerDied:
                LOG.info("a worker had died before it was told to stop")
            await asyncio.to_thread(self.process.join, STOP_S)
        self.kill()
        await self.release()
        self._thread.shutdown(wait=False)


def receive_from(pipe: Connection) -> tuple[Any, ...]:
    message: tuple[Any, ...] = pipe.recv()
    return message


class Pool:
    """Workers, and the door before them: at most `queue_size` requests wait."""

    def __init__(self, n_workers: int, queue_size: int, model_dir: str | None) -> None:
        self._workers = [Worker(model_dir) for _ in range(n_workers)]
        self._idle: asyncio.Queue[Worker | None] = asyncio.Queue()
        self._is_aborted = False
        self._most = queue_size + n_workers
        self._keepers: list[asyncio.Task[None]] = []
        self.n_held = 0  # requests waiting or running
        self.n_restarts = 0

    async def start(self) -> None:
        """Start every worker. Raises: NotReady where one cannot load its models; then none runs on."""
        try:
            for worker in self._workers:
                await worker.start()
                self._offer(worker)
        except BaseException:
            self.abort()  # else the exit would wait for those that did start
            raise
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        for keeper in self._keepers:
            keeper.add_done_callback(report_end)

    @property
    def is_ready(self) -> bool:
        return bool(self._keepers) and any(worker.health and worker.is_alive for worker in self._workers)

    @property
    def health(self) -> dict[str, Any]:
        return next((worker.health for worker in self._workers if worker.health), {})

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """A place among the requests held. Raises: Overloaded where all are taken."""
        if self.n_held >= self._most:
            raise Overloaded(f"{self.n_held} requests are held already; try again in a few seconds")
        self.n_held += 1
        try:
            yield
        finally:
            self.n_held -= 1

    async def run(self, job: Job, ends: float) -> AsyncGenerator[tuple[Any, ...]]:
        """Messages of the worker for this job: ("part", bytes)*, then ("done", ...) or ("failed", ...).

        ends: the deadline, on the clock of `time.monotonic`; the worker may say another one once it knows
        what is asked, by ("until", time), which is kept from the caller. Closing the iterator early (the caller
        went away) cancels the job.
        Raises: DeadlineExceeded, WorkerDied.
        """
        worker = await self._take(ends)
        life, finished = worker.life, False
        try:
            worker.canceled.clear()
            worker.send("job", job)
            while not finished:
                message = await self._receive(worker, life, ends)
                if message[0] == "until":
                    ends = message[1]
                    continue
                finished = message[0] in ("done", "failed")
                yield message
        except WorkerDied:
            if worker.life == life:
                worker.health = {}  # not to be taken; its keeper starts another and offers that
                worker.process.kill()
            raise
        finally:
            is_ours = worker.life == life and worker.health  # else its keeper sees to it
            if is_ours and finished:
                self._offer(worker)
            elif is_ours:
                await asyncio.shield(asyncio.create_task(self._cancel(worker)))

    def _offer(self, worker: Worker) -> None:
        """Let the next request have the worker; once, however often it is offered."""
        if not worker.is_offered:
            worker.is_offered = True
            self._idle.put_nowait(worker)

    async def _take(self, ends: float) -> Worker:
        while True:
            try:
                worker = await asyncio.wait_for(self._idle.get(), max(ends - time.monotonic(), 0))
            except TimeoutError as err:
                raise DeadlineExceeded("the deadline passed before a worker was free") from err
            if worker is None or self._is_aborted:
                raise NotReady("the server is going down; try another one")
            worker.is_offered = False
            if worker.health and worker.is_alive:  # else it died idle, and its keeper offers it again
                return worker

    async def _receive(self, worker: Worker, life: int, ends: float) -> tuple[Any, ...]:
        if worker.life != life:  # started again while nobody read: what it says now is for another request
            raise WorkerDied(DIED)
        try:
            return await asyncio.wait_for(worker.receive(), max(ends - time.monotonic(), 0))
        except TimeoutError as err:
            raise DeadlineExceeded("the deadline passed while the request ran") from err

    async def _cancel(self, worker: Worker) -> None:
        """Ask the worker to drop its job; kill it where it does not heed."""
        worker.canceled.set()
        try:
            async with asyncio.timeout(GRACE_S):
                while (await worker.receive())[0] not in ("done", "failed"):
                    pass
        except (TimeoutError, WorkerDied):
            LOG.warning("a worker did not drop a canceled request and is replaced")
            worker.process.kill()
            return
        self._offer(worker)

    async def _keep(self, worker: Worker) -> None:
        """Start the worker again whenever its process ends."""
        n_failed = 0
        while True:
            has_run = worker.process.pid is not None
            if has_run:
                await sentinel_of(worker)
            worker.health = {}  # before a thread collects it: meanwhile `is_alive` still says yes
            if has_run:
                await asyncio.to_thread(worker.process.join)
            LOG.error("a worker died", extra={"exitcode": worker.process.exitcode})
            await worker.release()
            self.n_restarts += 1
            await asyncio.sleep(RESTART_S[min(n_failed, len(RESTART_S) - 1)])
            try:
                await worker.start()
            except (VisemeError, OSError) as err:  # OSError: no process could be made
                n_failed += 1
                LOG.warning("a worker could not be started again", extra={"reason": str(err)})
                continue
            n_failed = 0
            self._offer(worker)

    def abort(self) -> None:
        """End every worker at once: what runs gets WorkerDied, what waits NotReady, and none is started again."""
        self._is_aborted = True
        for _ in range(self.n_held):
            self._idle.put_nowait(None)
        for keeper in self._keepers:
            keeper.cancel()
        for worker in self._workers:
            if worker.life:  # else it was never started: the signal came while others loaded
                worker.process.kill()

    async def stop(self) -> None:
        """Let every worker go; none may be running a request."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))


def report_end(keeper: asyncio.Task[None]) -> None:
    """A keeper ends only when it is canceled; anything else would leave us without a worker in silence."""
    if not keeper.cancelled() and keeper.exception() is not None:
        LOG.critical("the keeper of a worker failed", exc_info=keeper.exception())


async def sentinel_of(worker: Worker) -> None:
    """Return when the worker's process has ended."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    sentinel = worker.process.sentinel

    def tell() -> None:
        loop.remove_reader(sentinel)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(sentinel, tell)
    try:
        await ended
    finally:
        loop.remove_reader(sentinel)
