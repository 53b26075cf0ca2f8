"""Generations as callers see them: jobs in the form of sync.so.

Source: the classes Generation and GenerationNotification of the PyPI package syncsdk 0.3.0. Later versions of
the API call the code of an error `errorCode`, so both names are there.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from container.http.generation_errors import ERROR_CODES
from container.jobs.api.views import time_of
from container.jobs.generations.signed_urls import result_url
from container.jobs.records import JobError, JobRecord, JobState

ROUTE = "generations"  # of jobs that were submitted as generations
REQUEST, BASE_URL = "generation", "base_url"  # in `JobRecord.extra`: what was requested, and by which address
STATUSES = {
    JobState.QUEUED: "PENDING",
    JobState.STARTING: "PROCESSING",
    JobState.PROCESSING: "PROCESSING",
    JobState.SUCCEEDED: "COMPLETED",
    JobState.FAILED: "FAILED",
    JobState.CANCELED: "REJECTED",
}
REQUEST_FIELDS = ("model", "input", "options", "segments", "webhookUrl", "outputFileName")
CANCELED = "the generation was canceled"
AUDIO = "audio"
UNKNOWN_ERROR = "generation_unknown_error"
NOT_FETCHED = ("object_not_found", "access_denied", "storage_unavailable")


def generation_view(job: JobRecord, base_url: str, key: bytes, now: float) -> dict[str, Any]:
    """Return a job in sync.so's form. base_url: of this server, as the caller reaches it. key: signs the URL."""
    request = job.extra[REQUEST]
    code = error_code_of(job)
    is_done = job.state is JobState.SUCCEEDED
    return {
        "id": job.id,
        "createdAt": time_of(job.created_at),
        "status": STATUSES[job.state],
        **{name: request.get(name) for name in REQUEST_FIELDS},
        "outputUrl": result_url(base_url, job.id, key, now) if is_done else None,
        "outputDuration": duration_of(job) if is_done else None,
        "segmentOutputUrl": None,
        "error": CANCELED if job.state is JobState.CANCELED else None if job.error is None else job.error.message,
        "error_code": code,
        "errorCode": code,
    }


def duration_of(job: JobRecord) -> float | None:
    """Return the seconds of a finished generation's video."""
    duration_s: float | None = (job.result or {}).get("duration_s")
    return duration_s


def error_code_of(job: JobRecord) -> str | None:
    """Return the code of sync.so for a failed job: for a URL that cannot be fetched it names which of the media."""
    if job.error is None:
        return None
    if job.error.code in NOT_FETCHED and (kind := kind_at_fault(job.error, job.extra[REQUEST]["input"])) is not None:
        return f"generation_input_{kind}_inaccessible"
    return ERROR_CODES.get(job.error.code, UNKNOWN_ERROR)


def kind_at_fault(error: JobError, inputs: list[dict[str, Any]]) -> str | None:
    """Return the type of the input whose URL an error names, or else its host; None if it names no input."""
    named = [(one["type"], urlsplit(one.get("url") or "")) for one in inputs]
    for kind, parts in named:
        if parts.netloc and error.message.startswith(f"{parts.scheme}://{parts.netloc}{parts.path}:"):
            return str(kind)
    for kind, parts in sorted(named, key=lambda one: one[0] == AUDIO):  # the audio is fetched last
        if parts.hostname and error.message.startswith(f"{parts.hostname}:"):
            return str(kind)
    return None
