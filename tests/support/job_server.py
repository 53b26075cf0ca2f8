"""A server over a real socket whose jobs do what their bodies say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from container.app import Server, make_app
from container.jobs.service import JobService
from container.server import http_config
from container.worker.messages import (
    LOG_NAME,
    AnswerMessage,
    Failed,
    JobDone,
    JobOutput,
    Progress,
    WordsRead,
    WorkerRequest,
)
from inference.error_responses import Failure
from inference.settings import Settings
from support.waiting import PATIENCE_S, wait_until

VIDEO = {"content-type": "video/mp4"}


class IdlePool:
    """Workers of /invocations that no test uses."""

    is_ready = True
    health: dict[str, Any] = {}  # noqa: RUF012
    n_in_flight = n_restarts = 0

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def stop(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


class ObedientPool(IdlePool):
    """Workers of jobs: a body of `fail` fails, one of `wait` reports half of the work and waits for `release`."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.bodies: list[bytes] = []

    async def run(self, request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        body = request.body.read_bytes()
        self.bodies.append(body)
        (request.folder / LOG_NAME).write_text("a line of the model\n")
        if body == b"fail":
            yield Failed(Failure(400, "no_face_found", "no face in any frame"))
            return
        if body == b"wait":
            yield Progress("reading", 0.5)
            yield WordsRead(({"word": "BIN", "start": 0.0, "end": 0.4},))
            await self.released()
        path = request.folder / "wav2lip+gan.mp4"
        path.write_bytes(body)
        output = JobOutput(path.name, path, "video/mp4", {"num_frames": 75})
        yield JobDone({"status": "success", "text": "BIN BLUE"}, (output,), 812.5, None)

    async def released(self) -> None:
        while not self.release.is_set():
            await asyncio.sleep(0.01)


@dataclass
class JobServer:
    """A running server, its workers, and a client of it."""

    server: Server
    pool: ObedientPool
    client: httpx.Client

    def submit(self, body: bytes = b"a video", **headers: str) -> httpx.Response:
        return self.client.post(
            "/v1/jobs", content=body, headers=VIDEO | {n.replace("_", "-"): v for n, v in headers.items()}
        )

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return found

    def wait_for(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until the job is in one of the states, by default a final one, and return it."""
        wanted = states or ("succeeded", "failed", "canceled")
        wait_until(lambda: self.job(job_id)["state"] in wanted)
        return self.job(job_id)


@contextmanager
def running_job_server(settings: Settings, pool: ObedientPool | None = None, **headers: str) -> Iterator[JobServer]:
    """Run a server. pool: the workers of its jobs. headers: that its client sends with each request."""
    pool = pool or ObedientPool()
    server = Server(settings, IdlePool(), JobService(settings, lambda: pool))  # type: ignore[arg-type]
    http = uvicorn.Server(http_config(make_app(server), settings.model_copy(update={"port": 0})))
    thread = threading.Thread(target=asyncio.run, args=(http.serve(),))
    thread.start()
    try:
        wait_until(lambda: http.started or not thread.is_alive())
        port = http.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE_S) as client:
            yield JobServer(server, pool, client)
    finally:
        pool.release.set()
        http.should_exit = True
        thread.join(PATIENCE_S)
