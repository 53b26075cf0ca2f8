"""Messages over a pipe between the server and a lane of a worker process.

to the worker:    WorkerRequest, Stop
from the worker:  Ready or LoadFailed, once, by the first lane;
                  then for each request DeadlineChanged?, Part*, and Done or Failed,
                  or if it is a durable job's RequestParsed?, (Progress or WordsRead)*, and JobDone or Failed
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.error_responses import Failure
from inference.media_types import AcceptHeader

LOG_NAME = "log.txt"  # of a job, in the folder of its request


@dataclass(frozen=True)
class WorkerRequest:
    """A request as the server received it: its route, headers (names in lower case), and body on disk.

    deadline: on the clock of `time.monotonic`, which all processes share. sync_deadline: applies instead if the
    request turns out to be lip sync. is_job: whether it is a durable job's, whose outputs are files. traceparent: of
    the server's span, if it traces.
    """

    route: str
    headers: dict[str, str]
    body: Path
    request_id: str
    accept: AcceptHeader = field(default_factory=AcceptHeader)
    deadline: float = math.inf
    sync_deadline: float = math.inf
    is_job: bool = False
    traceparent: str | None = None

    @property
    def folder(self) -> Path:
        """The folder for files of the answer; the server deletes it with the body."""
        return self.body.parent


@dataclass(frozen=True)
class Stop:
    """End the process."""


@dataclass(frozen=True)
class Ready:
    """The models are loaded. health: what is available and what it runs with, for /health and the log."""

    health: dict[str, Any]


@dataclass(frozen=True)
class LoadFailed:
    """The models could not be loaded; the process ends."""

    reason: str


@dataclass(frozen=True)
class DeadlineChanged:
    """The request has another deadline, on the clock of `time.monotonic`."""

    deadline: float


@dataclass(frozen=True)
class Part:
    """A piece of the answer, sent while the request runs."""

    body: bytes


@dataclass(frozen=True)
class Done:
    """The request is done. body: all of the answer but its parts; a path is a file in the request's folder."""

    body: bytes | Path
    content_type: str


@dataclass(frozen=True)
class Failed:
    """The request failed. Peaks: of memory, in MiB, if it was a durable job's."""

    failure: Failure
    ram_peak_mib: float | None = None
    vram_peak_mib: float | None = None


@dataclass(frozen=True)
class RequestParsed:
    """The request of a job has been parsed, and is run. task: lipread or lipsync. outputs: names of what it makes."""

    task: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How much of a job is done. share: of the video, 0 to 1."""

    stage: str
    share: float


@dataclass(frozen=True)
class WordsRead:
    """Words of a long video, in order, while the rest is still being read."""

    words: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class JobOutput:
    """A file that a job made, in the folder of its request. details: such as num_frames and duration_s."""

    name: str
    path: Path
    content_type: str
    details: dict[str, Any] = field(default_factory=dict)
    s3_bucket: str | None = None
    s3_key: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class JobDone:
    """A job is done. result: the answer's JSON, without the contents of the files. Peaks: of memory, in MiB."""

    result: dict[str, Any]
    outputs: tuple[JobOutput, ...]
    ram_peak_mib: float | None
    vram_peak_mib: float | None


ServerMessage = WorkerRequest | Stop
InterimMessage = Part | RequestParsed | Progress | WordsRead
FinalMessage = Done | JobDone | Failed
AnswerMessage = InterimMessage | FinalMessage
WorkerMessage = Ready | LoadFailed | DeadlineChanged | AnswerMessage
