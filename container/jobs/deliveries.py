"""Webhooks of jobs: the rows that say what is to be delivered."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from container.jobs.generations import notifications
from container.jobs.generations.views import ROUTE as GENERATIONS
from container.jobs.records import JobRecord

MAX_RECEIVER = 255  # characters, as a host name has at most


def delivery_rows(job: JobRecord, now: float, url_key: bytes) -> list[dict[str, Any]]:
    """Return the deliveries that report the end of a job: one if it has a webhook for that event, else none.

    url_key: signs URLs of outputs.
    """
    if job.webhook_url is None:
        return []
    if job.route == GENERATIONS:
        return [delivery_row(job, notifications.event_of(job), notifications.payload_of(job, url_key, now), now)]
    kind = f"job.{job.state}"
    if job.webhook_events and kind not in job.webhook_events:
        return []
    return [delivery_row(job, kind, json.dumps(payload_of(job, kind, now)), now)]


def delivery_row(job: JobRecord, event: str, payload: str, now: float) -> dict[str, Any]:
    """Return the row of a delivery that is due now."""
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "job_number": job.number,
        "event": event,
        "url": job.webhook_url,
        "receiver": receiver_of(job.webhook_url or ""),
        "payload": payload,
        "state": "pending",
        "next_try_at": now,
        "created_at": now,
    }


def payload_of(job: JobRecord, kind: str, now: float) -> dict[str, Any]:
    """Return the body of a webhook, in the form of Standard Webhooks."""
    return {
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


def receiver_of(url: str) -> str:
    """Return the host and port of a URL, at most 255 characters."""
    return urlsplit(url).netloc.lower()[:MAX_RECEIVER]
