"""A worker process without models, which runs jobs whose outputs follow from their inputs: for what is tried on jobs.

A module of its own, so that a spawned process finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from container.worker.messages import Failed, JobDone, JobOutput, Progress, Ready, RequestParsed, WorkerRequest
from inference.error_responses import Failure

OUTPUT = "digest.bin"
OUTPUT_BYTES = 100_000
STEP_S = 0.05  # seconds between two looks at whether the job is canceled
REPORT_EVERY = 4  # steps


def make_input(seed: int, seconds: float) -> bytes:
    """Return the input of a job that takes so long."""
    return json.dumps({"seed": seed, "seconds": seconds}).encode()


def make_output(body: bytes) -> bytes:
    return hashlib.shake_256(body).digest(OUTPUT_BYTES)


def run_digest_jobs(
    ends: Sequence[tuple[Connection, Event]], model_dir: str | None, environment: Mapping[str, str]
) -> None:
    """Replace `container.worker.child.run_worker`."""
    del model_dir
    os.environ.update(environment)
    ends[0][0].send(Ready({"inference_ready": True}))
    for end in ends:
        threading.Thread(target=run_requests, args=end).start()


def run_requests(pipe: Connection, canceled: Event) -> None:
    """Run the jobs of one lane."""
    with contextlib.suppress(EOFError, OSError):
        while isinstance(request := pipe.recv(), WorkerRequest):
            pipe.send(run_job(request, pipe, canceled))


def run_job(request: WorkerRequest, pipe: Connection, canceled: Event) -> JobDone | Failed:
    body = request.body.read_bytes()
    pipe.send(RequestParsed("lipread", (OUTPUT,)))
    n_steps = max(round(json.loads(body)["seconds"] / STEP_S), 1)
    for i in range(n_steps):
        if canceled.is_set():
            return Failed(Failure(499, "canceled", "the request was canceled"))
        if i % REPORT_EVERY == 0:
            pipe.send(Progress("digesting", i / n_steps))
        time.sleep(STEP_S)
    path: Path = request.folder / OUTPUT
    path.write_bytes(make_output(body))
    return JobDone({"pid": os.getpid()}, (JobOutput(OUTPUT, path, "application/octet-stream"),), None, None)
