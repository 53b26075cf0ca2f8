"""The worker process: holds the models and runs one request at a time.

Spawned by `container.pool`; talks over a pipe in tuples, the first item of each says which.
    in:  ("job", Job), ("stop",)
    out: ("ready", health), ("broken", message), then for each job ("until", time)?, ("part", bytes)* and
         ("done", body, content type) or ("failed", Failure); a body that is a path lies in the job's folder
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from container.logs import set_up_logs
from container.statuses import failure_of
from inference.errors import Canceled, OutOfMemory, VisemeError

LOG = logging.getLogger("viseme.worker")


@dataclass(frozen=True)
class Job:
    """A request as the server took it in: its door, headers (names in lower case), and body on disk.

    ends: its deadline, on the clock of `time.monotonic`, which all processes share. sync_ends: where it turns
    out to be lip sync.
    """

    route: str
    headers: dict[str, str]
    body: Path
    request_id: str
    ends: float = math.inf
    sync_ends: float = math.inf

    @property
    def folder(self) -> Path:
        """For what goes back to the caller; the server clears it away with the body."""
        return self.body.parent


@dataclass(frozen=True)
class Context:
    """What the handler is given as `context`."""

    headers: dict[str, str]
    hooks: Any = field(default=None)

    def get_all_request_header(self, index: int) -> dict[str, str]:  # noqa: ARG002 - the toolkits' signature
        return self.headers


def run_worker(pipe: Connection, canceled: Event, model_dir: str | None) -> None:
    """Load the models, say so, and run jobs until told to stop or the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server drains and then tells us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    set_up_logs()
    from container.doors import Doors

    try:
        doors = Doors(model_dir)
        health = doors.measure()
    except Exception as err:
        LOG.exception("the models could not be loaded")
        pipe.send(("broken", str(err) if isinstance(err, VisemeError) else type(err).__name__))
        return
    pipe.send(("ready", health))
    with contextlib.suppress(EOFError, BrokenPipeError), contextlib.closing(doors):
        serve_jobs(pipe, canceled, doors)


def serve_jobs(pipe: Connection, canceled: Event, doors: Any) -> None:
    while True:
        kind, *rest = pipe.recv()
        if kind == "stop":
            return
        (job,) = rest
        pipe.send(run_job(job, pipe, canceled, doors))


def run_job(job: Job, pipe: Connection, canceled: Event, doors: Any) -> tuple[Any, ...]:
    """The last message of a job; errors go to the log whole and to the caller as they may be seen."""

    def check() -> None:
        if canceled.is_set():
            raise Canceled("the request was canceled")

    try:
        body, content_type = doors.answer(job, check, pipe.send)
    except Exception as caught:
        err = OutOfMemory("the request needs more memory than there is") if is_out_of_memory(caught) else caught
        failure = failure_of(err)
        if failure.status >= 500:
            LOG.exception("request failed", extra={"request_id": job.request_id, "code": failure.code})
        return ("failed", failure)
    return ("done", body, content_type)


def is_out_of_memory(err: BaseException) -> bool:
    """Python's, or CUDA's, which is a RuntimeError of its own name."""
    return isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError"
