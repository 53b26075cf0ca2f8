"""Asynchronous requests that expired in the endpoint's queue, or whose result never arrived."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from jobs.records import Prefixes, find_object

Client = Any  # boto3 creates its classes at run time

EXPIRED = "expired"  # error code
REQUEST_TTL = timedelta(hours=6)  # that a request may wait in the endpoint's queue; SageMaker's longest and its default
INVOCATION_TIMEOUT = timedelta(hours=1)  # SageMaker's longest; without it a call is given up after 15 minutes
NOTIFICATION_MARGIN = timedelta(minutes=15)  # for the result to be written, published and stored
DEADLINE = REQUEST_TTL + INVOCATION_TIMEOUT + NOTIFICATION_MARGIN


def find_expired(s3: Client, bucket: str, prefixes: Prefixes, now: datetime) -> Iterator[str]:
    """Yield the ids of the jobs that were sent so long ago that no result can arrive any more.

    Each object under requests/waiting/ is a request that the endpoint has.
    """
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefixes.waiting):
        for found in page.get("Contents", []):
            if now - found["LastModified"] <= DEADLINE:
                continue
            job_id = found["Key"].removeprefix(prefixes.waiting)
            if find_object(s3, bucket, prefixes.request_key(job_id)):
                yield job_id
            else:  # somebody deleted the request, so that the video can be sent again
                s3.delete_object(Bucket=bucket, Key=found["Key"])


def explain_expiry() -> str:
    """Return what a record contains as the reason."""
    hours = REQUEST_TTL // timedelta(hours=1)
    return (
        f"expired: no result arrived within {hours} hours in the endpoint's queue and an hour of processing; the "
        "endpoint may have had no instance. To send the video again, process the dead-letter queue again, or upload "
        "the video again"
    )
