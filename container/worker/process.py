"""A worker process as the server sees it: the pipes to it, and what it reported."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from container.worker.child import run_worker
from container.worker.messages import LoadFailed, Ready, ServerMessage, Stop, WorkerMessage
from container.worker.placement import Placement
from inference.errors import NotReady, WorkerDied

logger = logging.getLogger("viseme.pool")
DIED_MESSAGE = "the worker process died while it ran the request; the request was not retried"
STOP_TIMEOUT_S = 3.0  # seconds for an idle worker to exit by itself
SPAWN = multiprocessing.get_context("spawn")  # never forked: torch and its threads do not survive a fork


class Lane:
    """A thread of a worker process, which runs one request at a time, and the pipe to it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.is_queued = False  # in the pool's queue of idle lanes
        self.is_running = False  # a request that its caller still wants
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="worker-pipe")
        self._pending: asyncio.Future[WorkerMessage] | None = None

    def open(self) -> tuple[Connection, Event]:
        """Make the pipe and the event of cancellation for a new process. Returns: the process's end, and the event."""
        self._pipe, worker_end = SPAWN.Pipe()
        self.canceled = SPAWN.Event()
        self._pending = None
        self.is_running = False
        return worker_end, self.canceled

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

    async def close(self) -> None:
        """Close the pipe to a process that has ended."""
        if (pending := self._pending) is not None:  # the thread is still reading: it reaches the pipe's end at once
            await asyncio.wait({pending})
            pending.exception()  # retrieved, so that asyncio does not warn about it
        self._pipe.close()

    def end_thread(self) -> None:
        self._thread.shutdown(wait=False)


class Worker:
    """A worker process and its successors, one at a time, in the same place."""

    def __init__(self, model_dir: str | None, placement: Placement) -> None:
        self._model_dir, self._placement = model_dir, placement
        self.lanes = [Lane(self) for _ in range(placement.n_lanes)]
        self.health: dict[str, Any] = {}
        self.generation = 0  # number of processes started so far
        self.n_requests = 0  # that the present process has ended
        self.is_retired = False  # gets no more requests, and is killed once it runs none

    async def start(self) -> None:
        """Spawn the process and wait until its models are loaded.

        Raises: NotReady, with the reason, if they could not be loaded.
        """
        self.generation += 1
        self.n_requests = 0
        self.is_retired = False
        ends = [lane.open() for lane in self.lanes]
        self.process = SPAWN.Process(
            target=run_worker, args=(ends, self._model_dir, self._placement.environment), name="viseme-worker"
        )
        self.process.start()
        for pipe, _ in ends:
            pipe.close()
        message = await self.lanes[0].receive()
        if not isinstance(message, Ready):
            self.process.join()
            reason = message.reason if isinstance(message, LoadFailed) else message
            raise NotReady(f"the models could not be loaded: {reason}")
        self.health = message.health

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    @property
    def accepts_jobs(self) -> bool:
        return bool(self.health) and not self.is_retired and self.is_alive

    def retire(self) -> None:
        """Give it no more requests, and kill it as soon as it runs none that a caller still wants."""
        self.is_retired = True
        if not any(lane.is_running for lane in self.lanes):
            self.process.kill()

    def kill(self) -> None:
        """End the process at once, and free its resources."""
        self.process.kill()
        self.process.join()

    async def close_pipes(self) -> None:
        """Close the pipes to a process that has ended; `is_alive` and `kill` still work afterwards."""
        for lane in self.lanes:
            await lane.close()

    async def stop(self) -> None:
        """Stop an idle worker."""
        if self.is_alive:
            try:
                for lane in self.lanes:
                    lane.send(Stop())
            except WorkerDied:
                logger.info("a worker had died before it was stopped")
            await asyncio.to_thread(self.process.join, STOP_TIMEOUT_S)
        self.kill()
        await self.close_pipes()
        for lane in self.lanes:
            lane.end_thread()


def receive_from(pipe: Connection) -> WorkerMessage:
    message: WorkerMessage = pipe.recv()
    return message
