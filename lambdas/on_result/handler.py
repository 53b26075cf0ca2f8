"""Stores the result of an asynchronous invocation under the name of the video it processed.

SageMaker publishes success and failure to SNS topics. Either becomes a record `results/NAME.json` with the transcript
or the reason; if TABLE_NAME names a DynamoDB table, the item created by `invoke_endpoint` is completed, too. SNS may
deliver the same result twice: the second time the same record is written again.

A failure is final if the container rejected the request itself. After any other one the item is "retryable", so that
the next event for the video is sent again, and such an event is put into the dead-letter queue DEAD_LETTERS_URL, if
that is set: nothing is repeated by itself, since the endpoint may be out of order.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

Client = Any  # boto3 creates its classes at run time
Record = dict[str, Any]

JSON = "application/json"
REQUEST_SUFFIX = ".json"
STATUSES = ("Completed", "Failed")
# As in "ClientError: Received server error (500) from model. See the SageMaker Endpoint logs ...".
CONTAINER_STATUS = re.compile(r"Received (?:client|server) error \((\d{3})\)")
RETRYABLE_STATUSES = frozenset({408, 425, 429, 499})  # as in `invoke_endpoint`
MAX_ANSWER_BYTES = 5 * 1024 * 1024  # copied into the record; of a longer answer it has only the location
RETENTION_S = 30 * 24 * 3600  # of table items, as in `invoke_endpoint`


class ResultsFailed(Exception):
    """Some results could not be stored. Raised so that Lambda retries the event and finally moves it to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """The function's environment variables."""

    input_prefix: str
    output_prefix: str
    request_prefix: str
    table: str | None
    dead_letters_url: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        return cls(
            input_prefix=as_folder(env.get("INPUT_PREFIX") or "uploads/"),
            output_prefix=as_folder(env.get("OUTPUT_PREFIX") or "results/"),
            request_prefix=as_folder(env.get("REQUEST_PREFIX") or "requests/"),
            table=env.get("TABLE_NAME") or None,
            dead_letters_url=env.get("DEAD_LETTERS_URL") or None,
        )


@dataclass(frozen=True)
class ProcessedInput:
    """What was processed. request: the body of the request, None if the object itself was the input."""

    bucket: str
    key: str
    request: Record | None = None

    @property
    def audio_key(self) -> str | None:
        return self.request.get("s3_audio_key") if self.request else None


def handler(event: Record, _context: object) -> Record:
    """Store every result of an SNS event.

    Returns: {"results": [{"status", "inference_id", "record"}]}.
    Raises: ResultsFailed if some failed, after all were tried.
    """
    settings = Settings.from_env(os.environ)
    s3 = boto3.client("s3")
    stored, failures = [], []
    for record in event["Records"]:
        try:
            stored.append(store_result(json.loads(record["Sns"]["Message"]), s3, settings))
        except (ClientError, BotoCoreError, KeyError, ValueError) as err:
            logger.exception("not stored: %s", json.dumps(record, default=str)[:2000])
            failures.append(f"{type(err).__name__}: {err}")
    if failures:
        raise ResultsFailed(f"{len(failures)} of {len(event['Records'])} failed: " + "; ".join(failures))
    return {"results": stored}


def store_result(message: Record, s3: Client, settings: Settings) -> Record:
    """Store one result in S3, and in the table if there is one."""
    invocation_status = message["invocationStatus"]
    if invocation_status not in STATUSES:
        raise ValueError(f"invocationStatus {invocation_status}: expected one of {', '.join(STATUSES)}")
    found = read_input(message["requestParameters"]["inputLocation"], s3, settings)
    record = {"inference_id": message["inferenceId"], "s3_bucket": found.bucket, "s3_video_key": found.key}
    record |= success_fields(message, s3) if invocation_status == "Completed" else failure_fields(message)
    record["finished_at"] = message.get("eventTime")
    audio_name = [PurePosixPath(found.audio_key).name] if found.audio_key else []
    name = ".".join([found.key.removeprefix(settings.input_prefix), *audio_name, "json"])
    record_key = settings.output_prefix + name
    s3.put_object(Bucket=found.bucket, Key=record_key, Body=json.dumps(record).encode(), ContentType=JSON)
    if settings.table:
        complete_item(settings.table, record, state_of(record), f"s3://{found.bucket}/{record_key}")
    if state_of(record) == "retryable" and found.request:
        allow_retry(found, message["requestParameters"]["inputLocation"], s3, settings)
    logger.info("%s: %s in %s", record["inference_id"], record["status"], record_key)
    return {"status": record["status"], "inference_id": record["inference_id"], "record": record_key}


def allow_retry(found: ProcessedInput, input_location: str, s3: Client, settings: Settings) -> None:
    """Put the request into the dead-letter queue, and without a table delete the request object, which is the claim."""
    if settings.dead_letters_url:
        boto3.client("sqs").send_message(QueueUrl=settings.dead_letters_url, MessageBody=json.dumps(found.request))
    if not settings.table:
        bucket, key = split_uri(input_location)
        s3.delete_object(Bucket=bucket, Key=key)


def state_of(record: Record) -> str:
    if record["status"] == "success":
        return "succeeded"
    return "retryable" if record["retryable"] else "failed"


def read_input(input_location: str, s3: Client, settings: Settings) -> ProcessedInput:
    """Return what was processed.

    Requests by `invoke_endpoint` are JSON files that name it; other callers may have passed the video itself as input,
    or a JSON request with the media inside.
    """
    bucket, key = split_uri(input_location)
    if not (key.startswith(settings.request_prefix) and key.endswith(REQUEST_SUFFIX)):
        return ProcessedInput(bucket, key)
    request = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    if "s3_video_key" not in request:
        return ProcessedInput(bucket, key)
    return ProcessedInput(request["s3_bucket"], request["s3_video_key"], request)


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
    found: Record = {"status": "error", "error": {"code": "invocation_failed", "message": reason}}
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


def complete_item(table: str, record: Record, state: str, record_uri: str) -> None:
    """Complete the claim's item with the result; create it if the request was not sent by `invoke_endpoint`."""
    values = {":state": state, ":record": record_uri, ":error": record.get("error", {}).get("message")}
    values |= {":bucket": record["s3_bucket"], ":key": record["s3_video_key"], ":until": int(time.time()) + RETENTION_S}
    boto3.resource("dynamodb").Table(table).update_item(
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


def as_folder(prefix: str) -> str:
    return prefix.strip("/") + "/"
