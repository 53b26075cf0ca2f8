"""Workers that run requests with real engines in a thread of this process, which has loaded them already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from container.worker.child import run_request
from container.worker.messages import AnswerMessage, DeadlineChanged, FinalMessage, WorkerRequest
from container.worker.routes import WorkerRoutes
from inference.engines import Engines
from support.job_server import IdlePool


class EnginePool(IdlePool):
    """Serves /invocations and jobs, one request at a time, as `container.worker.pool.Pool` does."""

    def __init__(self, engines: Engines) -> None:
        self._routes = WorkerRoutes(engines)
        self._lock = asyncio.Lock()
        self.health: dict[str, Any] = {"inference_ready": True}

    def check_capacity(self) -> None:
        """Do nothing: there is room for every request."""

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        yield

    async def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        async with self._lock:
            pipe, canceled = AwaitedPipe(), threading.Event()
            work = asyncio.create_task(
                asyncio.to_thread(run_request, worker_request, pipe, canceled, self._routes)  # type: ignore[arg-type]
            )
            work.add_done_callback(lambda done: pipe.messages.put_nowait(done.result()))
            try:
                while not isinstance(message := await pipe.messages.get(), FinalMessage):
                    if not isinstance(message, DeadlineChanged):
                        yield message
                yield message
            finally:
                canceled.set()
                await work


class AwaitedPipe:
    """Passes what a thread sends to the event loop that made it."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, message: Any) -> None:
        self._loop.call_soon_threadsafe(self.messages.put_nowait, message)
