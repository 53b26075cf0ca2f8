"""Stores the result of an asynchronous invocation under the name of the video it processed.

SageMaker publishes success and failure to SNS topics. Either becomes the record of the job, `requests/ID.result.json`,
and of the video, `results/NAME.json`, unless that is of a newer version. If TABLE_NAME names a DynamoDB table, the item
created by `invoke_endpoint` is completed, too. SNS may deliver a result twice, and in any order: the second
time the same record is written again, a failure never replaces a success of the same job, and one that may pass counts
only until its job is sent again.

A failure is final if the container rejected the request itself. After any other one the item is "retryable", so that
the next event for the video is sent again, and such an event is put into the dead-letter queue DEAD_LETTERS_URL, if
that is set: nothing is repeated by itself, since the endpoint may be out of order.

SageMaker does not document that it publishes anything for a request that expired in its queue. Therefore a schedule
calls this function, too: a request in BUCKET_NAME that has no result long after it must have one is recorded as failed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from jobs.claims import RETENTION_S
from jobs.expired import EXPIRED, explain_expiry, find_expired
from jobs.job_form import READ_TASK, job_fields
from jobs.records import JSON, ObjectPath, Prefixes, WriteConflict, find_object, publish, store_result
from jobs.version import UploadVersion

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

Client = Any  # boto3 creates its classes at run time
Record = dict[str, Any]

REQUEST_SUFFIX = ".json"
STATUSES = ("Completed", "Failed")
# As in "ClientError: Received server error (500) from model. See the SageMaker Endpoint logs ...".
CONTAINER_STATUS = re.compile(r"Received (?:client|server) error \((\d{3})\)")
RETRYABLE_STATUSES = frozenset({408, 425, 429, 499})  # as in `invoke_endpoint`
MAX_ANSWER_BYTES = 5 * 1024 * 1024  # copied into the record; of a longer answer it has only the location
MAX_EXPIRED = 100  # requests recorded as expired in one call, which has 30 s; the next call finds the others


class ResultsFailed(Exception):
    """Some results could not be stored. Raised so that Lambda retries the event and finally moves it to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """The function's environment variables."""

    prefixes: Prefixes
    table: str | None
    dead_letters_url: str | None
    bucket: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        return cls(
            prefixes=Prefixes.from_env(env),
            table=env.get("TABLE_NAME") or None,
            dead_letters_url=env.get("DEAD_LETTERS_URL") or None,
            bucket=env.get("BUCKET_NAME") or None,
        )


@dataclass(frozen=True)
class ProcessedInput:
    """What was processed.

    request: the body of the request, None if the object itself was the input.
    version: what the request was made for; None if `invoke_endpoint` did not make it. created_at: of the request.
    """

    bucket: str
    key: str
    request: Record | None = None
    version: UploadVersion | None = None
    created_at: datetime | None = None

    def target(self, prefixes: Prefixes) -> ObjectPath:
        """Return where the record belongs."""
        audio_key = self.request.get("s3_audio_key") if self.request else None
        return ObjectPath(self.bucket, prefixes.result_key(self.key, audio_key))


def handler(event: Record, _context: object) -> Record:
    """Store every result of an SNS event; of a schedule's event, a failure for every request that expired.

    Returns: {"results": [{"status", "inference_id", "record"}]}.
    Raises: ResultsFailed if some failed, after all were tried.
    """
    settings = Settings.from_env(os.environ)
    s3 = boto3.client("s3")
    stored, failures = [], []
    messages = list_messages(event, s3, settings)
    for message in messages:
        try:
            stored.append(store_message(json.loads(message), s3, settings))
        except (ClientError, BotoCoreError, WriteConflict, KeyError, ValueError) as err:
            logger.exception("not stored: %s", message[:2000])
            failures.append(f"{type(err).__name__}: {err}")
    if failures:
        raise ResultsFailed(f"{len(failures)} of {len(messages)} failed: " + "; ".join(failures))
    return {"results": stored}


def list_messages(event: Record, s3: Client, settings: Settings) -> list[str]:
    """Return SageMaker's notifications, as JSON; for a schedule's event, one for every request that expired."""
    if "Records" in event:
        return [record["Sns"]["Message"] for record in event["Records"]]
    if event.get("source") != "aws.events":
        raise ValueError(f"an event with {sorted(event)}: expected one of SNS, or of a schedule")
    if not settings.bucket:
        raise ValueError("BUCKET_NAME is not set")
    now = datetime.now(UTC)
    return [
        json.dumps(
            {
                "invocationStatus": "Failed",
                "inferenceId": job_id,
                "eventTime": now.isoformat(timespec="milliseconds"),
                "requestParameters": {
                    "inputLocation": f"s3://{settings.bucket}/{settings.prefixes.request_key(job_id)}"
                },
                "failureReason": explain_expiry(),
                EXPIRED: True,
            }
        )
        for job_id in islice(find_expired(s3, settings.bucket, settings.prefixes, now), MAX_EXPIRED)
    ]


def store_message(message: Record, s3: Client, settings: Settings) -> Record:
    """Store the result that a notification names in S3, and in the table if there is one."""
    invocation_status = message["invocationStatus"]
    if invocation_status not in STATUSES:
        raise ValueError(f"invocationStatus {invocation_status}: expected one of {', '.join(STATUSES)}")
    input_location = message["requestParameters"]["inputLocation"]
    found = read_input(input_location, s3, settings.prefixes)
    record = {"inference_id": message["inferenceId"], "s3_bucket": found.bucket, "s3_video_key": found.key}
    record |= success_fields(message, s3) if invocation_status == "Completed" else failure_fields(message)
    record["finished_at"] = message.get("eventTime")
    record |= job_fields(record, found.request, found.created_at)
    target = found.target(settings.prefixes)
    stored = {"status": record["status"], "inference_id": record["inference_id"], "record": target.key}
    if found.version is None:
        publish(s3, target, record, UploadVersion("", "", current_at_ms=milliseconds(message.get("eventTime"))))
        complete_item(settings, record, f"s3://{target.bucket}/{target.key}")
        return stored
    is_stored = store_job(found, found.version, record, s3, settings)
    return stored if is_stored else stored | {"status": "ignored"}


def store_job(found: ProcessedInput, version: UploadVersion, record: Record, s3: Client, settings: Settings) -> bool:
    """Store the result of a job that `invoke_endpoint` sent, and end its waiting.

    Returns: False if the notification is out of date.
    """
    job_id, target = record["inference_id"], found.target(settings.prefixes)
    may_pass = state_of(record) == "retryable"
    waiting = ObjectPath(found.bucket, settings.prefixes.waiting_key(job_id))
    if may_pass and is_dealt_with(s3, waiting, milliseconds(record["finished_at"])):
        logger.info("%s: a failure that was stored before is ignored", job_id)
        return False
    if not store_result(s3, settings.prefixes, target, record, version):
        logger.info("%s: a failure after its success is ignored", job_id)
        s3.delete_object(Bucket=waiting.bucket, Key=waiting.key)
        return False
    complete_item(settings, record, f"s3://{target.bucket}/{settings.prefixes.record_key(job_id)}")
    if may_pass:
        if not settings.table:
            s3.delete_object(Bucket=found.bucket, Key=settings.prefixes.claim_key(job_id))
        queue_retry(found, version, settings)
    # Last: if this function is killed before, its retry does the same again.
    s3.delete_object(Bucket=waiting.bucket, Key=waiting.key)
    logger.info("%s: %s in %s", job_id, record["status"], target.key)
    return True


def is_dealt_with(s3: Client, waiting: ObjectPath, failed_at_ms: int) -> bool:
    """Return whether a failure that may pass was stored before: its job may have been sent again since.

    waiting: exists while the endpoint has the request, and is written just before that is sent.
    failed_at_ms: 0 if the notification has no time. Raises: ClientError.
    """
    found = find_object(s3, waiting.bucket, waiting.key)
    return found is None or 0 < failed_at_ms < found["LastModified"].timestamp() * 1000


def milliseconds(time_text: str | None) -> int:
    """Return an ISO 8601 time as Unix time in milliseconds; 0 for None. Raises: ValueError."""
    return int(datetime.fromisoformat(time_text).timestamp() * 1000) if time_text else 0


def queue_retry(found: ProcessedInput, version: UploadVersion, settings: Settings) -> None:
    """Put the request into the dead-letter queue, if there is one.

    The message names the version, so that a repeated request remains the same job, and does not become the newest.
    """
    if settings.dead_letters_url:
        message = json.dumps({**(found.request or {}), "version": asdict(version)})
        boto3.client("sqs").send_message(QueueUrl=settings.dead_letters_url, MessageBody=message)


def state_of(record: Record) -> str:
    if record["status"] == "success":
        return "succeeded"
    return "retryable" if record["retryable"] else "failed"


def read_input(input_location: str, s3: Client, prefixes: Prefixes) -> ProcessedInput:
    """Return what was processed.

    Requests by `invoke_endpoint` are JSON files that name it; other callers may have passed the video itself as input,
    or a JSON request with the media inside.
    """
    bucket, key = split_uri(input_location)
    if not (key.startswith(prefixes.requests) and key.endswith(REQUEST_SUFFIX)):
        return ProcessedInput(bucket, key)
    reply = s3.get_object(Bucket=bucket, Key=key)
    request = json.loads(reply["Body"].read())
    if "s3_video_key" not in request:
        media = {"task": request.get("task", READ_TASK)}  # without the media themselves
        return ProcessedInput(bucket, key, media, created_at=reply["LastModified"])
    version = UploadVersion.from_metadata(reply["Metadata"])
    made_for = version if version.etag else None
    return ProcessedInput(request["s3_bucket"], request["s3_video_key"], request, made_for, reply["LastModified"])


def success_fields(message: Record, s3: Client) -> Record:
    """Return the record's fields for a success: the answer and its location."""
    location = message["responseParameters"]["outputLocation"]
    found: Record = {"status": "success", "output_location": location}
    bucket, key = split_uri(location)
    reply = s3.get_object(Bucket=bucket, Key=key)
    is_json = message["responseParameters"].get("contentType", JSON).startswith(JSON)
    if is_json and reply["ContentLength"] <= MAX_ANSWER_BYTES:
        found["answer"] = json.loads(reply["Body"].read())
    return found


def failure_fields(message: Record) -> Record:
    """Return the record's fields for a failure: the reason, and whether the same request may succeed later."""
    reason = message.get("failureReason") or "SageMaker gave no reason"
    code = EXPIRED if message.get(EXPIRED) else "invocation_failed"
    found: Record = {"status": "error", "error": {"code": code, "message": reason}}
    found["retryable"] = is_retryable(reason)
    location = message.get("responseParameters", {}).get("failureLocation")
    return found | ({"failure_location": location} if location else {})


def is_retryable(reason: str) -> bool:
    """Return whether a failure may pass: all but a status that rejects the request itself.

    Without a status the container did not answer: it died, took too long, or SageMaker could not reach S3.
    """
    found = CONTAINER_STATUS.search(reason)
    if found is None:
        return True
    status = int(found[1])
    return not 400 <= status < 500 or status in RETRYABLE_STATUSES


def complete_item(settings: Settings, record: Record, record_uri: str) -> None:
    """Complete the claim's item with the result; create it if the request was not sent by `invoke_endpoint`."""
    if not settings.table:
        return
    values = {":state": state_of(record), ":record": record_uri, ":error": record.get("error", {}).get("message")}
    values |= {":bucket": record["s3_bucket"], ":key": record["s3_video_key"], ":until": int(time.time()) + RETENTION_S}
    boto3.resource("dynamodb").Table(settings.table).update_item(
        Key={"id": record["inference_id"]},
        UpdateExpression="SET #state = :state, #record = :record, #error = :error, s3_bucket = :bucket, "
        "s3_video_key = :key, expires_at = if_not_exists(expires_at, :until)",
        ExpressionAttributeNames={"#state": "state", "#record": "record", "#error": "error"},
        ExpressionAttributeValues=values,
    )


def split_uri(uri: str) -> tuple[str, str]:
    """Split 's3://bucket/a/b.json' into ('bucket', 'a/b.json'). Raises: ValueError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise ValueError(f"{uri}: expected s3://bucket/key")
    return bucket, key
