"""The pool of worker processes, kept alive, with a bounded number of requests waiting for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Any

from container.worker.messages import AnswerMessage, DeadlineChanged, FinalMessage, WorkerMessage, WorkerRequest
from container.worker.placement import Placement
from container.worker.process import DIED_MESSAGE, Lane, Worker
from inference.errors import DeadlineExceeded, NotReady, Overloaded, VisemeError, WorkerDied

logger = logging.getLogger("viseme.pool")
# Seconds for a worker to stop a canceled request before it is killed: it checks about once per second of video, and on
# a busy machine reading that takes seconds. Starting another worker takes longer still.
CANCEL_TIMEOUT_S = 10.0
RESTART_DELAYS_S = (0.1, 1.0, 5.0, 15.0)  # seconds before the first, second, ... restart in a row


class Pool:
    """Worker processes, and the admission of requests: at most `queue_size` wait."""

    def __init__(
        self,
        placements: Sequence[Placement],
        queue_size: int,
        model_dir: str | None,
        max_requests: int | None = None,
    ) -> None:
        """Take the places of the workers, one each. max_requests: after which a worker is replaced; None: never."""
        self._workers = [Worker(model_dir, placement) for placement in placements]
        self._idle: asyncio.Queue[Lane | None] = asyncio.Queue()
        self._max_requests = max_requests
        self._is_aborted = False
        self._capacity = queue_size + sum(placement.n_lanes for placement in placements)
        self._supervisors: list[asyncio.Task[None]] = []
        self.n_in_flight = 0  # requests waiting or running
        self.n_restarts = 0

    async def start(self) -> None:
        """Start every worker. Raises: NotReady if one cannot load its models; all are ended then."""
        try:
            first, *others = self._workers
            await first.start()  # it fills the cache of compiled networks for the others
            await asyncio.gather(*(worker.start() for worker in others))
            self._release_all(self._workers)
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

    async def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        """Run a request on the next idle lane of a worker.

        Yields: any number of `InterimMessage`, then a `FinalMessage`.
        The request's deadline applies until the worker sends another one after parsing the request.
        Closing the iterator early, when the caller disconnects, cancels the request.
        Raises: DeadlineExceeded, NotReady, WorkerDied.
        """
        deadline = worker_request.deadline
        lane = await self._acquire(deadline)
        worker = lane.worker
        generation, finished = worker.generation, False
        try:
            lane.canceled.clear()
            lane.send(worker_request)
            while not finished:
                message = await self._receive(lane, generation, deadline)
                if isinstance(message, DeadlineChanged):
                    deadline = message.deadline
                    continue
                assert isinstance(message, AnswerMessage)
                finished = isinstance(message, FinalMessage)
                yield message
        except WorkerDied:
            if worker.generation == generation:
                worker.health = {}  # not to be acquired; its supervisor restarts it and then releases it
                worker.process.kill()
            raise
        finally:
            is_same = worker.generation == generation and worker.health  # otherwise its supervisor takes over
            if is_same and finished:
                self._end_request(lane)
            elif is_same:
                await asyncio.shield(asyncio.create_task(self._cancel(lane)))

    def _end_request(self, lane: Lane) -> None:
        """Make the lane of a request that has ended available; or retire its worker, if that was its last one."""
        lane.worker.n_requests += 1
        if self._max_requests is not None and lane.worker.n_requests >= self._max_requests:
            lane.worker.is_retired = True
        self._release(lane)

    def _release(self, lane: Lane) -> None:
        """Make the lane available to the next request; once, however often it is called."""
        lane.is_running = False
        if lane.worker.is_retired:
            lane.worker.retire()  # it may have been the last one that was waited for
        elif not lane.is_queued:
            lane.is_queued = True
            self._idle.put_nowait(lane)

    def _release_all(self, workers: Sequence[Worker]) -> None:
        """Make all lanes available, those of different workers in turn."""
        for lanes in zip_longest(*(worker.lanes for worker in workers)):
            for lane in filter(None, lanes):
                self._release(lane)

    async def _acquire(self, deadline: float) -> Lane:
        while True:
            try:
                lane = await asyncio.wait_for(self._idle.get(), max(deadline - time.monotonic(), 0))
            except TimeoutError as err:
                raise DeadlineExceeded("the deadline passed before a worker was free") from err
            if lane is None or self._is_aborted:
                raise NotReady("the server is going down; try another one")
            lane.is_queued = False
            if lane.worker.accepts_jobs:  # otherwise it ends or has died, and its supervisor releases the lane again
                lane.is_running = True
                return lane

    async def _receive(self, lane: Lane, generation: int, deadline: float) -> WorkerMessage:
        if lane.worker.generation != generation:  # restarted between two messages: the next one is of another request
            raise WorkerDied(DIED_MESSAGE)
        try:
            return await asyncio.wait_for(lane.receive(), max(deadline - time.monotonic(), 0))
        except TimeoutError as err:
            raise DeadlineExceeded("the deadline passed while the request ran") from err

    async def _cancel(self, lane: Lane) -> None:
        """Have the worker drop the request; replace the worker if it does not, once it runs no other request."""
        worker, generation = lane.worker, lane.worker.generation
        lane.canceled.set()
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while not isinstance(await lane.receive(), FinalMessage):
                    pass
        except (TimeoutError, WorkerDied):
            if worker.generation == generation:
                logger.warning("a worker did not drop a canceled request and is replaced")
                lane.is_running = False
                worker.retire()
            return
        if worker.generation == generation:
            self._end_request(lane)

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
            if worker.is_retired:
                logger.info("a worker is replaced", extra={"requests": worker.n_requests})
            else:
                logger.error("a worker died", extra={"exitcode": worker.process.exitcode})
            await worker.close_pipes()
            self.n_restarts += 1
            await asyncio.sleep(RESTART_DELAYS_S[min(n_failed, len(RESTART_DELAYS_S) - 1)])
            try:
                await worker.start()
            except (VisemeError, OSError) as err:  # OSError: the process could not be created
                n_failed += 1
                logger.warning("a worker could not be restarted", extra={"reason": str(err)})
                continue
            n_failed = 0
            self._release_all([worker])

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
