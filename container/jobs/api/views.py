"""Jobs as callers see them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from container.jobs.records import AttemptRecord, JobEvent, JobRecord, JobState, OutputRecord

JOBS_PATH = "/v1/jobs"


def job_path(job_id: str) -> str:
    return f"{JOBS_PATH}/{job_id}"


def summary_of(job: JobRecord) -> dict[str, Any]:
    """Return what lists contain of a job."""
    path = job_path(job.id)
    return {
        "id": job.id,
        "state": job.state,
        "progress": job.progress,
        "stage": job.stage,
        "task": job.task,
        "attempt": job.attempt,
        "error": None if job.error is None else asdict(job.error),
        "created_at": time_of(job.created_at),
        "started_at": time_of(job.started_at),
        "finished_at": time_of(job.finished_at),
        "retry_at": time_of(job.retry_at),
        "expires_at": time_of(job.expires_at),
        "urls": {"job": path, "events": f"{path}/events"},
    }


def view_of(job: JobRecord) -> dict[str, Any]:
    """Return a job with its result, outputs and attempts."""
    return summary_of(job) | {
        "result": job.result if job.state is JobState.SUCCEEDED else None,
        "outputs": [output_view(job, output) for output in job.outputs],
        "attempts": [attempt_view(job, attempt) for attempt in job.attempts],
        "input_bytes": job.input_bytes,
        "request_id": job.request_id,
        "webhook_url": job.webhook_url,
        "webhook_events": list(job.webhook_events),
    }


def output_view(job: JobRecord, output: OutputRecord) -> dict[str, Any]:
    """Return an output. url: where it can be downloaded. s3_url: of its copy in S3, if the request named a folder."""
    is_there = output.state is JobState.SUCCEEDED and output.key is not None
    return {
        "name": output.name,
        "state": output.state,
        "url": f"{job_path(job.id)}/outputs/{quote(output.name, safe='+')}" if is_there else None,
        "content_type": output.content_type,
        "size": output.n_bytes,
        "sha256": output.sha256,
        "s3_bucket": output.s3_bucket,
        "s3_key": output.s3_key,
        "s3_url": output.url,
        "details": output.details,
        "error": None if output.error is None else asdict(output.error),
    }


def attempt_view(job: JobRecord, attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "started_at": time_of(attempt.started_at),
        "ended_at": time_of(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": None if attempt.error is None else asdict(attempt.error),
        "ram_peak_mib": attempt.ram_peak_mib,
        "vram_peak_mib": attempt.vram_peak_mib,
        "log_url": f"{job_path(job.id)}/logs/{attempt.number}",
    }


def event_view(event: JobEvent) -> dict[str, Any]:
    return {"attempt": event.attempt, "time": time_of(event.created_at)} | event.data


def time_of(seconds: float | None) -> str | None:
    """Return a time in ISO 8601, UTC, in milliseconds. seconds: since 1970."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
