"""Files what an asynchronous invocation came to, under the name of the film it read.

SageMaker tells of success and failure through SNS. Either becomes a record `results/NAME.json`, with the transcript
or the reason in it; where TABLE_NAME names a DynamoDB table, the item that `invoke_endpoint` made is completed, too.
SNS may tell of the same result twice: the second time the same is written over it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

Client = Any  # boto3 makes its classes while it runs
Record = dict[str, Any]

JSON = "application/json"
STATES = {"Completed": "succeeded", "Failed": "failed"}
MAX_ANSWER_BYTES = 5 * 1024 * 1024  # of a transcript; a longer answer is only pointed to
KEEP_S = 30 * 24 * 3600  # as long as `invoke_endpoint` keeps its items


class ResultsFailed(Exception):
    """Some results could not be filed. Raised, so that Lambda tries again and then hands them to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """How this function is deployed."""

    input_prefix: str
    output_prefix: str
    request_prefix: str
    table: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        return cls(
            input_prefix=as_folder(env.get("INPUT_PREFIX") or "uploads/"),
            output_prefix=as_folder(env.get("OUTPUT_PREFIX") or "results/"),
            request_prefix=as_folder(env.get("REQUEST_PREFIX") or "requests/"),
            table=env.get("TABLE_NAME") or None,
        )


def handler(event: Record, _context: object) -> Record:
    """File every result of an SNS event.

    Returns: {"results": [{"status", "inference_id", "record"}]}.
    Raises: ResultsFailed after all were tried, where some failed.
    """
    settings = Settings.from_env(os.environ)
    s3 = boto3.client("s3")
    filed, failures = [], []
    for notice in event["Records"]:
        try:
            filed.append(file_result(json.loads(notice["Sns"]["Message"]), s3, settings))
        except (ClientError, BotoCoreError, KeyError, ValueError) as err:
            logger.exception("not filed: %s", json.dumps(notice, default=str)[:2000])
            failures.append(f"{type(err).__name__}: {err}")
    if failures:
        raise ResultsFailed(f"{len(failures)} of {len(event['Records'])} failed: " + "; ".join(failures))
    return {"results": filed}


def file_result(message: Record, s3: Client, settings: Settings) -> Record:
    """One result into S3, and into the table where there is one."""
    invocation_status = message["invocationStatus"]
    if invocation_status not in STATES:
        raise ValueError(f"invocationStatus {invocation_status}: expected one of {', '.join(STATES)}")
    bucket, key, voice = film_of(message["requestParameters"]["inputLocation"], s3, settings)
    record = {"inference_id": message["inferenceId"], "s3_bucket": bucket, "s3_video_key": key}
    record |= success_of(message, s3) if invocation_status == "Completed" else failure_of(message)
    record["finished_at"] = message.get("eventTime")
    name = ".".join([key.removeprefix(settings.input_prefix), *([PurePosixPath(voice).name] if voice else []), "json"])
    record_key = settings.output_prefix + name
    s3.put_object(Bucket=bucket, Key=record_key, Body=json.dumps(record).encode(), ContentType=JSON)
    if settings.table:
        complete_item(settings.table, record, STATES[invocation_status], f"s3://{bucket}/{record_key}")
    logger.info("%s: %s in %s", record["inference_id"], record["status"], record_key)
    return {"status": record["status"], "inference_id": record["inference_id"], "record": record_key}


def film_of(input_location: str, s3: Client, settings: Settings) -> tuple[str, str, str | None]:
    """Bucket and key of the film that was read; where it was lip-synced, the key of the voice.

    A request of ours names it; other callers may have given the film itself as the input.
    """
    bucket, key = split_url(input_location)
    if not key.startswith(settings.request_prefix):
        return bucket, key, None
    request = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return request["s3_bucket"], request["s3_video_key"], request.get("s3_audio_key")


def success_of(message: Record, s3: Client) -> Record:
    """What a success adds to a record: the answer, and where it lies."""
    location = message["responseParameters"]["outputLocation"]
    found: Record = {"status": "success", "output_location": location}
    bucket, key = split_url(location)
    reply = s3.get_object(Bucket=bucket, Key=key)
    is_json = message["responseParameters"].get("contentType", JSON).startswith(JSON)
    if is_json and reply["ContentLength"] <= MAX_ANSWER_BYTES:
        found["answer"] = json.loads(reply["Body"].read())
    return found


def failure_of(message: Record) -> Record:
    """What a failure adds to a record: the reason."""
    reason = message.get("failureReason") or "SageMaker gave no reason"
    found: Record = {"status": "error", "error": {"code": "invocation_failed", "message": reason}}
    location = message.get("responseParameters", {}).get("failureLocation")
    return found | ({"failure_location": location} if location else {})


def complete_item(table: str, record: Record, state: str, record_url: str) -> None:
    """The claim's item says how it ended. It may have no item: then it was not ours, and gets one."""
    values = {":state": state, ":record": record_url, ":error": record.get("error", {}).get("message")}
    values |= {":bucket": record["s3_bucket"], ":key": record["s3_video_key"], ":until": int(time.time()) + KEEP_S}
    boto3.resource("dynamodb").Table(table).update_item(
        Key={"id": record["inference_id"]},
        UpdateExpression="SET #state = :state, #record = :record, #error = :error, s3_bucket = :bucket, "
        "s3_video_key = :key, expires_at = if_not_exists(expires_at, :until)",
        ExpressionAttributeNames={"#state": "state", "#record": "record", "#error": "error"},
        ExpressionAttributeValues=values,
    )


def split_url(url: str) -> tuple[str, str]:
    """'s3://bucket/a/b.json' -> ('bucket', 'a/b.json'). Raises: ValueError."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key:
        raise ValueError(f"{url}: expected s3://bucket/key")
    return bucket, key


def as_folder(prefix: str) -> str:
    return prefix.strip("/") + "/"
