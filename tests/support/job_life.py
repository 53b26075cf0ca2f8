"""The life of one job in a process of its own: a service whose workers follow a script.

    python -m support.job_life DATA_DIR CONTENT GATE

runs jobs until it is ended: each makes one output with this content, as soon as the file GATE exists.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from container.jobs import job_queue, retry, runner, service
from container.jobs.records import JobRecord, NewJob
from container.jobs.service import JobService
from container.worker.messages import (
    LOG_NAME,
    AnswerMessage,
    JobDone,
    JobOutput,
    Progress,
    RequestParsed,
    WordsRead,
    WorkerRequest,
)
from inference.settings import Settings

PATIENCE_S = 120.0  # only a guard against hanging
LEASE_S = 3.0
INPUT = b"the input"
OUTPUT_NAME = "video.mp4"
JOB = NewJob(
    "0123456789abcdef" * 2,
    "owner",
    "client",
    "invocations",
    {"content-type": "video/mp4"},
    "ab" * 32,
    len(INPUT),
    webhook_url="https://example.com/hook",
    outputs=(OUTPUT_NAME,),
    idempotency_key="key",
)


@dataclass
class ScriptedPool:
    """Makes one output with this content for each job, once the gate exists if there is one."""

    content: bytes
    gate: Path | None = None

    async def start(self) -> None:
        """Start no process."""

    def abort(self) -> None:
        """End no process."""

    async def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        assert worker_request.body.read_bytes() == INPUT
        yield RequestParsed("lipsync", (OUTPUT_NAME,))
        yield Progress("syncing", 0.5)
        yield WordsRead(({"word": "bin"},))
        while self.gate is not None and not self.gate.exists():
            await asyncio.sleep(0.02)
        (worker_request.folder / LOG_NAME).write_text("a line of the model\n")
        path = worker_request.folder / OUTPUT_NAME
        path.write_bytes(self.content)
        yield JobDone({"status": "success"}, (JobOutput(OUTPUT_NAME, path, "video/mp4"),), 10.0, None)


def hurry() -> None:
    """Shorten what the code waits for."""
    job_queue.LEASE_S, runner.RENEWAL_S = LEASE_S, LEASE_S / 5
    runner.RETRY_DELAYS_S = (0.02,)
    retry.DATABASE_RETRY_S = 0.02
    service.POLL_S = service.LEASE_SWEEP_S = service.FILE_SWEEP_S = 0.05


def make_settings(data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir, job_attempts=50)  # a busy machine may lose leases


async def wait_for_end(job_service: JobService) -> JobRecord:
    """Wait until the job has ended and its files are swept."""
    store = await job_service.open()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job = await asyncio.to_thread(store.repository.find, JOB.id)
            if job.state.is_final and not await asyncio.to_thread(store.repository.unswept):
                return job
            await asyncio.sleep(0.02)


async def run_jobs(data_dir: Path, pool: ScriptedPool) -> None:
    job_service = JobService(make_settings(data_dir), lambda: pool)
    await job_service.open()
    await asyncio.Event().wait()


if __name__ == "__main__":
    hurry()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(run_jobs(Path(sys.argv[1]), ScriptedPool(sys.argv[2].encode(), Path(sys.argv[3]))))
