"""Claims of jobs: of several runs with the same job, the first one sends it.

A claim that was not confirmed expires after LEASE_S, since its function may have been killed. Until then the job is in
flight: another run with it fails, so that Lambda or the queue repeats the event once the claim is confirmed or expired.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.exceptions import ClientError
from jobs.records import MISSING_CODES, Prefixes, put_if
from jobs.uploads import UploadedVideo

Client = Any  # boto3 creates its classes at run time

LEASE_S = 120  # longer than the function may run (90 s), but over before Lambda's second retry (after 3 minutes)
RETENTION_S = 30 * 24 * 3600  # of table items; as long as the template keeps request objects
CONDITION_FAILED = "ConditionalCheckFailedException"
CLAIMED = "claimed"  # state of a table item; in S3 the run follows, and no other state starts so


class JobInFlight(Exception):
    """Another run has claimed the job, and neither sent it nor given it up."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"another run is sending {job_id}; its claim expires after {LEASE_S} s: try again then")


class ClaimStore(Protocol):
    """Decides which run sends a video."""

    def claim(self, video: UploadedVideo) -> bool:
        """Claim the video; return False if it was sent before. Raises: JobInFlight."""

    def confirm(self, video: UploadedVideo, state: str) -> None:
        """Record that the endpoint has the request, so that the claim no longer expires."""

    def release(self, video: UploadedVideo) -> None:
        """Give up the claim after a failure, so that the next run can send the video."""


class DynamoDbClaims:
    """Claims as items of a DynamoDB table; `on_result` completes them."""

    def __init__(self, table: str) -> None:
        self._table: Client = boto3.resource("dynamodb").Table(table)
        self._claimed_at: dict[str, int] = {}

    def claim(self, video: UploadedVideo) -> bool:
        now = time.time_ns()
        item = {"id": video.id, "state": CLAIMED, "claimed_at": now, "expires_at": now // 10**9 + RETENTION_S}
        item |= {"s3_bucket": video.bucket, "s3_video_key": video.key, "etag": video.etag}
        values = {":claimed": CLAIMED, ":expired": now - LEASE_S * 10**9, ":retryable": "retryable", ":now": now}
        # `on_result` sets "retryable" after a fault that may pass.
        free = "attribute_not_exists(id) OR (#state = :claimed AND claimed_at < :expired) OR #state = :retryable"
        free += " OR claimed_at = :now"  # boto3 repeats a call whose answer was lost
        try:
            self._table.put_item(
                Item=item,
                ConditionExpression=free,
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as err:
            if err.response["Error"]["Code"] != CONDITION_FAILED:
                raise
            found: Any = err.response  # boto3 leaves the item of an error as DynamoDB encodes it
            if found["Item"]["state"]["S"] == CLAIMED:
                raise JobInFlight(video.id) from err
            return False
        self._claimed_at[video.id] = now
        return True

    def confirm(self, video: UploadedVideo, state: str) -> None:
        self._write_if_mine(self._table.update_item, video, {":state": state}, UpdateExpression="SET #state = :state")

    def release(self, video: UploadedVideo) -> None:
        self._write_if_mine(self._table.delete_item, video, {})

    def _write_if_mine(self, write: Any, video: UploadedVideo, values: dict[str, Any], **call: Any) -> None:
        """Change the item if its claim is still the one made here: a result, or another run, may have replaced it."""
        mine = {":claimed": CLAIMED, ":mine": self._claimed_at[video.id]}
        try:
            write(
                Key={"id": video.id},
                ConditionExpression="#state = :claimed AND claimed_at = :mine",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=mine | values,
                **call,
            )
        except ClientError as err:
            if err.response["Error"]["Code"] != CONDITION_FAILED:
                raise


@dataclass(frozen=True)
class S3Claim:
    """A claim as S3 has it. state: different for each run that claims, so that no two have one ETag."""

    state: str
    etag: str
    age_s: float


class S3Claims:
    """Claims as objects, which S3 writes only if they do not exist, or are those that were read."""

    def __init__(self, s3: Client, prefixes: Prefixes) -> None:
        self._s3 = s3
        self._prefixes = prefixes
        self._mine: dict[str, str] = {}

    def claim(self, video: UploadedVideo) -> bool:
        mine = f"{CLAIMED} {uuid.uuid4().hex}"
        if not self._put(video, mine, IfNoneMatch="*"):
            found = self._read(video)
            if found and not found.state.startswith(CLAIMED):
                return False
            if found and found.state != mine and found.age_s > LEASE_S:
                self._put(video, mine, IfMatch=found.etag)
                found = self._read(video)
            # By what was read: boto3 repeats a write whose answer was lost, and its condition does not hold then.
            if found is None or found.state != mine:
                raise JobInFlight(video.id)
        self._mine[video.id] = mine
        return True

    def confirm(self, video: UploadedVideo, state: str) -> None:
        found = self._read(video)
        if found and found.state == self._mine[video.id]:
            self._put(video, state, IfMatch=found.etag)

    def release(self, video: UploadedVideo) -> None:
        found = self._read(video)
        if found and found.state == self._mine[video.id]:
            self._s3.delete_object(Bucket=video.bucket, Key=self._prefixes.claim_key(video.id))

    def _put(self, video: UploadedVideo, state: str, **condition: str) -> bool:
        key = self._prefixes.claim_key(video.id)
        return put_if(self._s3, Bucket=video.bucket, Key=key, Body=state.encode(), **condition)

    def _read(self, video: UploadedVideo) -> S3Claim | None:
        """Return the claim that exists. Raises: ClientError."""
        try:
            found = self._s3.get_object(Bucket=video.bucket, Key=self._prefixes.claim_key(video.id))
        except ClientError as err:
            if err.response["Error"]["Code"] not in MISSING_CODES:
                raise
            return None
        age_s = time.time_ns() / 10**9 - found["LastModified"].timestamp()
        return S3Claim(found["Body"].read().decode(), found["ETag"], age_s)
