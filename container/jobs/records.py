"""Jobs as the database records them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """The states of a job. The last three are final."""

    QUEUED = "queued"
    STARTING = "starting"  # a worker has claimed it: it fetches the inputs and loads the models
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES

    @property
    def is_running(self) -> bool:
        return self in RUNNING_STATES


FINAL_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)
RUNNING_STATES = (JobState.STARTING, JobState.PROCESSING)


class AttemptOutcome(StrEnum):
    """How an attempt at a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    LOST = "lost"  # its worker died, or could not renew the lease


@dataclass(frozen=True)
class NewJob:
    """A job to be queued. Its input is in storage already.

    id: 32 hexadecimal digits. owner: who may see the job, and whose idempotency keys are distinct. client: whose jobs
    take turns with those of other clients. route, headers, accept: of the request that the job runs, see
    `container.worker.messages`. request_sha256: of all that was submitted, to recognize a repetition. outputs: names of
    the expected outputs; empty if they are known only once the job runs. extra: fields of the protocol by which the job
    was submitted, which its records repeat.
    """

    id: str
    owner: str
    client: str
    route: str
    headers: dict[str, str]
    request_sha256: str
    input_bytes: int
    task: str = "lipread"
    accept: str | None = None
    idempotency_key: str | None = None
    webhook_url: str | None = None
    webhook_events: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    request_id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a code of `inference.error_responses`, its status there, and a message for the caller."""

    code: str
    message: str
    status: int = 500


@dataclass(frozen=True)
class OutputRecord:
    """One output of a job.

    key: its file in storage, relative to the folder of the job, `attempts/N/NAME`; None until it is written.
    s3_bucket, s3_key, url: its place in S3, if the request named one. state: queued, processing, succeeded, failed or
    canceled.
    """

    name: str
    state: JobState = JobState.QUEUED
    key: str | None = None
    content_type: str | None = None
    n_bytes: int | None = None
    sha256: str | None = None
    s3_bucket: str | None = None
    s3_key: str | None = None
    url: str | None = None
    details: dict[str, Any] = field(default_factory=dict)  # such as num_frames and duration_s
    error: JobError | None = None


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at a job, numbered from 1. Times: seconds since 1970, UTC. Peaks: MiB, None if not measured."""

    number: int
    worker: str
    started_at: float
    ended_at: float | None = None
    outcome: AttemptOutcome | None = None
    error: JobError | None = None
    ram_peak_mib: float | None = None
    vram_peak_mib: float | None = None


@dataclass(frozen=True)
class JobRecord:
    """A job as it is now. Times: seconds since 1970, UTC. progress: percent, 100 only if it succeeded.

    number: grows with each job and orders lists. attempt: of the attempt that runs or ran last, 0 before the first.
    result: the answer's JSON, or None if it is a file among the outputs, or the job has not succeeded.
    """

    number: int
    id: str
    owner: str
    client: str
    state: JobState
    stage: str
    progress: int
    attempt: int
    route: str
    headers: dict[str, str]
    task: str
    accept: str | None
    request_sha256: str
    input_bytes: int
    request_id: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    retry_at: float | None
    error: JobError | None
    result: dict[str, Any] | None
    webhook_url: str | None
    webhook_events: tuple[str, ...]
    extra: dict[str, Any]
    outputs: tuple[OutputRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of a job until it expires; every write about the attempt is checked against it."""

    job_number: int
    job_id: str
    attempt: int
    owner: str

    @property
    def prefix(self) -> str:
        """The folder of the attempt's files, relative to the folder of the job."""
        return attempt_prefix(self.attempt)


def attempt_prefix(attempt: int) -> str:
    return f"attempts/{attempt}"


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job. sequence: counts from 1 within the job. kind: state, progress or words."""

    sequence: int
    attempt: int
    kind: str
    data: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class Submission:
    """A job, and whether this submission queued it; otherwise an earlier one with the same key did."""

    job: JobRecord
    is_new: bool


@dataclass(frozen=True)
class QueueStatistics:
    """Numbers of the queue, for metrics.

    oldest_wait_s: seconds that the oldest queued job has waited, 0 if none. n_input_bytes: of the inputs in storage.
    """

    n_queued: int
    n_running: int
    n_attempts: int
    oldest_wait_s: float
    n_input_bytes: int
