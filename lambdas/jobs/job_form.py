"""Records in the form of the server's own jobs, `GET /v1/jobs/ID`: one reader serves both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Record = dict[str, Any]

READ_TASK, SYNC_TASK = "lipread", "lipsync"
MP4 = "video/mp4"
WEBHOOK_FIELDS = "webhook_url", "webhook_events"
INLINE_FIELDS = "video", "face", "audio", "audios", "video_url", "face_url", "audio_url", "audio_urls"


def job_fields(record: Record, request: Record | None, created_at: datetime | None = None) -> Record:
    """Return the fields of a job for a record of the functions, which has its own beside them.

    record: with inference_id, status, and answer or error. request: the body that was sent; None if it is unknown.
    Times are ISO 8601 in UTC. The attempt is 1: what is sent again replaces the record.
    """
    has_succeeded = record["status"] == "success"
    answer = record.get("answer")
    return {
        "id": record["inference_id"],
        "state": "succeeded" if has_succeeded else "failed",
        "progress": 100 if has_succeeded else 0,
        "stage": "done" if has_succeeded else "failed",
        "task": (request or {}).get("task", READ_TASK),
        "attempt": 1,
        "created_at": None if created_at is None else format_time(created_at),
        "started_at": None,
        "finished_at": record["finished_at"],
        "retry_at": None,
        "expires_at": None,
        "result": answer if has_succeeded and isinstance(answer, dict) else None,
        "outputs": [output_fields(one) for one in outputs_of(answer)] if has_succeeded else [],
    }


def outputs_of(answer: object) -> list[Record]:
    """Return the videos that an answer lists; none for lip reading."""
    found = answer.get("outputs", []) if isinstance(answer, dict) else []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def output_fields(output: Record) -> Record:
    """Return a video of an answer as an output of a job. Its only place is S3: there is no server to ask."""
    details = {name: output.get(name) for name in ("model", "num_frames", "duration_s")}
    return {
        "name": f"{output.get('model')}.mp4",
        "state": "succeeded",
        "url": output.get("url"),
        "content_type": MP4,
        "size": None,
        "sha256": None,
        "s3_bucket": output.get("s3_bucket"),
        "s3_key": output.get("s3_key"),
        "s3_url": output.get("url"),
        "details": details,
        "error": None,
    }


def check_job_body(body: Record) -> None:
    """Check that a body of `POST /v1/jobs` is one that an endpoint can process. Raises: ValueError naming the field."""
    for name in WEBHOOK_FIELDS:
        if name in body:
            raise ValueError(f'"{name}": expected none here; results are published to the SNS topics of the endpoint')
    if "s3_video_key" not in body:
        found = next((name for name in INLINE_FIELDS if name in body), None)
        what = "a body without it" if found is None else f'"{found}"'
        raise ValueError(f'"s3_video_key": missing; found {what}; only files in S3 are processed here')


def format_time(moment: datetime) -> str:
    """Return a time in ISO 8601, UTC, in milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
