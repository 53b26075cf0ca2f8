"""The webhooks of generations, as sync.so sends them.

A receiver verifies them as sync.so's: `Sync-Signature: t=SECONDS,v1=HMAC`, in hexadecimal digits, over the time, a dot
and the body, by the whole secret with its prefix `whsec_`.
Source: https://sync.so/docs/api-reference/guides/webhooks; its example signs JSON.stringify of the parsed body, so the
body has that form: no spaces, no escaped letters, and no fraction of a whole number.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from container.jobs.generations.views import BASE_URL, STATUSES, generation_view
from container.jobs.records import JobRecord

EVENT_PREFIX = "generation."
SIGNATURE_HEADER = "sync-signature"


def event_of(job: JobRecord) -> str:
    """Return the type of the event that reports a generation's end, such as generation.completed."""
    return EVENT_PREFIX + STATUSES[job.state].lower()


def payload_of(job: JobRecord, key: bytes, now: float) -> str:
    """Return the body that reports a generation's end. key: signs the URL of the video."""
    view = generation_view(job, job.extra[BASE_URL], key, now)
    return json.dumps(as_javascript(view), separators=(",", ":"), ensure_ascii=False)


def as_javascript(value: Any) -> Any:
    """Return a JSON value whose whole numbers are written without a fraction."""
    if isinstance(value, dict):
        return {name: as_javascript(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_javascript(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def signature_header(payload: str, secret: str, now: float) -> str:
    """Return the value of Sync-Signature. now: in seconds since 1970."""
    timestamp = int(now)
    signature = hmac.new(secret.encode(), f"{timestamp}.{payload}".encode(), hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={signature}"
