"""Webhooks of jobs: the rows that say what is to be delivered."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from container.jobs.records import JobRecord

MAX_RECEIVER = 255  # characters, as a host name has at most


def delivery_rows(job: JobRecord, now: float) -> list[dict[str, Any]]:
    """Return the deliveries that report the end of a job: one if it has a webhook for that event, else none."""
    kind = f"job.{job.state}"
    if job.webhook_url is None or (job.webhook_events and kind not in job.webhook_events):
        return []
    payload = {
        "type": kind,
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
        "data": {
            "id": job.id,
            "state": job.state,
            "progress": job.progress,
            "result": job.result,
            "error": None if job.error is None else asdict(job.error),
        },
    }
    row = {
        "id": f"msg_{uuid.uuid4().hex}",
        "job_number": job.number,
        "event": kind,
        "url": job.webhook_url,
        "receiver": receiver_of(job.webhook_url or ""),
        "payload": json.dumps(payload),
        "state": "pending",
        "next_try_at": now,
        "created_at": now,
    }
    return [row]


def receiver_of(url: str) -> str:
    """Return the host and port of a URL, at most 255 characters."""
    return urlsplit(url).netloc.lower()[:MAX_RECEIVER]
