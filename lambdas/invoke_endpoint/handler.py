"""Sends each uploaded video to the endpoint once: on events from S3, EventBridge or SQS, or when called directly.

Once means once for the same bucket, key, ETag and options. If TABLE_NAME names a DynamoDB table, a conditional put
there decides; if the function is killed before it called the endpoint, its claim expires after LEASE_S and the event's
own retry takes it over. Without a table the request object in S3 decides, since it is written only if it does not
exist: two events for one video still make one call, but if the function is killed between claim and call, the video
is not processed until `requests/ID.json` is deleted.

To lip-sync a face to an audio file, upload both, then a file NAME.job.json with the body of the request.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote_plus

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

Event = dict[str, Any]
Outcome = dict[str, Any]
Client = Any  # boto3 creates its classes at run time

JSON = "application/json"
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
VIDEO_SUFFIXES |= {".flv", ".wmv", ".asf", ".ogv", ".mxf", ".3gp", ".gif"}
JOB_SUFFIX = ".job.json"
MAX_JOB_BYTES = 64 << 10
LIPSYNC_TASK = "lipsync"
REALTIME_TIMEOUT_S = 60  # SageMaker's limit for one real-time invocation
LEASE_S = 120  # longer than the function may run (90 s), but over before Lambda's first retry (60 s after that)
RETENTION_S = 30 * 24 * 3600  # of table items; as long as the template keeps request objects
INVOCATION_TIMEOUT_S = 3600  # SageMaker's longest; without it an asynchronous call is given up after 15 minutes
# Statuses below 500 that a retry may not get: a slow body, too early, too many requests, a caller that disconnected.
RETRYABLE_STATUSES = frozenset({408, 425, 429, 499})
CONFLICT_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class VideosFailed(Exception):
    """Some videos could not be sent. Raised so that Lambda retries the event and finally moves it to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """The function's environment variables."""

    endpoint: str
    mode: str
    input_prefix: str
    output_prefix: str
    request_prefix: str
    table: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. Raises: ValueError naming the variable that is missing or invalid."""
        if not env.get("ENDPOINT_NAME"):
            raise ValueError("ENDPOINT_NAME is not set")
        settings = cls(
            endpoint=env["ENDPOINT_NAME"],
            mode=env.get("MODE") or "async",
            input_prefix=as_folder(env.get("INPUT_PREFIX") or "uploads/"),
            output_prefix=as_folder(env.get("OUTPUT_PREFIX") or "results/"),
            request_prefix=as_folder(env.get("REQUEST_PREFIX") or "requests/"),
            table=env.get("TABLE_NAME") or None,
        )
        if settings.mode not in ("async", "realtime"):
            raise ValueError(f"MODE={settings.mode}: expected async or realtime")
        for prefix in (settings.output_prefix, settings.request_prefix):
            if prefix.startswith(settings.input_prefix):  # our own output would trigger this function again, endlessly
                raise ValueError(f"{prefix} is inside INPUT_PREFIX {settings.input_prefix}")
        return settings


@dataclass(frozen=True)
class UploadedVideo:
    """One version of a video to be processed.

    etag: identifies the version.
    options: further fields of the request body.
    is_direct: named in a direct call or a job file, so prefix and file name are not checked.
    """

    bucket: str
    key: str
    etag: str
    options: dict[str, Any] = field(default_factory=dict)
    is_direct: bool = False

    @property
    def id(self) -> str:
        """SHA-256 in 64 hexadecimal digits: the longest InferenceId that SageMaker accepts."""
        parts = [self.bucket, self.key, self.etag, self.options]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def body(self) -> bytes:
        """JSON body of the request to the endpoint."""
        return json.dumps({"s3_bucket": self.bucket, "s3_video_key": self.key, **self.options}).encode()

    @property
    def result_name(self) -> str:
        """Name of its result, with the audio file's if there is one: a face may be synced to several."""
        audio = self.options.get("s3_audio_key")
        return f"{self.key}.{PurePosixPath(audio).name}" if audio else self.key


class ClaimStore(Protocol):
    """Decides which caller sends a video: the first to claim it."""

    def claim(self, video: UploadedVideo) -> bool:
        """Claim the video; return whether the caller may send it."""

    def confirm(self, video: UploadedVideo, state: str) -> None:
        """Record that the endpoint has the request, so that the claim no longer expires."""

    def release(self, video: UploadedVideo) -> None:
        """Give up the claim after a failure, so that the next caller can send the video."""


def handler(event: Event, _context: object) -> Outcome:
    """Send the videos that the event names.

    Returns: {"results": [...]}, one for each video; for a batch from SQS {"batchItemFailures": [...]}.
    Raises: VideosFailed if some failed, after all were tried; a retry does not send the others again.
    """
    sender = RequestSender(Settings.from_env(os.environ))
    messages = [one for one in event.get("Records", []) if one.get("eventSource") == "aws:sqs"]
    if not messages:
        return {"results": send_all(sender, event)}
    failed = []
    for message in messages:
        try:
            send_all(sender, json.loads(message["body"]))
        except (VideosFailed, ValueError):
            logger.exception("message %s returned to its queue", message["messageId"])
            failed.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failed}


def send_all(sender: RequestSender, event: Event) -> list[Outcome]:
    """Try every video of an event, even if one before it failed."""
    outcomes: list[Outcome] = []
    failures = []
    records = list_records(event)
    for record in records:
        try:
            outcome = sender.send(sender.read_record(record))
        except (ClientError, BotoCoreError, KeyError, ValueError) as err:
            logger.exception("not sent: %s", json.dumps(record, default=str)[:2000])
            failures.append(f"{record_key(record)}: {type(err).__name__}: {err}")
            continue
        logger.info(json.dumps(outcome))
        outcomes.append(outcome)
    if failures:
        raise VideosFailed(f"{len(failures)} of {len(records)} failed: " + "; ".join(failures))
    return outcomes


def list_records(event: Event) -> list[Event]:
    """Return the records of an event. Raises: ValueError if it is of an unknown kind."""
    if event.get("Event") == "s3:TestEvent":
        return []  # sent when an S3 notification is created
    if "Records" in event:
        return [one for one in event["Records"] if "ObjectCreated" in one.get("eventName", "ObjectCreated")]
    if event.get("source") == "aws.s3":
        return [event] if event.get("detail-type") == "Object Created" else []
    if "s3_bucket" in event:
        return [event]
    raise ValueError(f"an event with {sorted(event)}: expected an S3 or EventBridge event, or s3_bucket, s3_video_key")


def record_key(record: Event) -> str:
    """Return the key that a record names, for messages."""
    source = record.get("s3") or record.get("detail") or {}
    return str(source.get("object", {}).get("key") or record.get("s3_video_key") or "a record without a key")


class RequestSender:
    """Sends requests to the endpoint of this deployment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._s3: Client = boto3.client("s3")
        # boto3 would repeat a call that timed out, and the endpoint would do the work twice: Lambda retries instead.
        once = Config(read_timeout=REALTIME_TIMEOUT_S + 5, retries={"mode": "standard", "total_max_attempts": 1})
        self._endpoint: Client = boto3.client("sagemaker-runtime", config=once)
        self._claims: ClaimStore = DynamoDbClaims(settings.table) if settings.table else S3Claims(self._s3, settings)

    def read_record(self, record: Event) -> UploadedVideo:
        """Return the video that a record names.

        Raises: KeyError if a field is missing; ValueError if a job file is invalid.
        """
        if "s3" in record:
            found = record["s3"]
            # S3 encodes keys in its own notifications; EventBridge events contain them unencoded.
            key = unquote_plus(found["object"]["key"])
            return self._read_upload(found["bucket"]["name"], key, strip_quotes(found["object"]["eTag"]))
        if "detail" in record:
            found = record["detail"]
            etag = found["object"].get("etag") or found["object"]["eTag"]  # moto's spelling
            return self._read_upload(found["bucket"]["name"], found["object"]["key"], strip_quotes(etag))
        etag = self._s3.head_object(Bucket=record["s3_bucket"], Key=record["s3_video_key"])["ETag"]
        return self._from_request(record, strip_quotes(etag))

    def _read_upload(self, bucket: str, key: str, etag: str) -> UploadedVideo:
        """Return the uploaded video, or the one that an uploaded job file names.

        Raises: ValueError or KeyError if the job file is invalid.
        """
        if not (key.startswith(self.settings.input_prefix) and key.endswith(JOB_SUFFIX)):
            return UploadedVideo(bucket, key, etag)
        reply = self._s3.get_object(Bucket=bucket, Key=key)
        if reply["ContentLength"] > MAX_JOB_BYTES:
            raise ValueError(f"{key}: {reply['ContentLength']} bytes; a job has at most {MAX_JOB_BYTES}")
        job = json.loads(reply["Body"].read())
        if not isinstance(job, dict) or job.setdefault("s3_bucket", bucket) != bucket:
            raise ValueError(f"{key}: expected a JSON object with files in the bucket {bucket}")
        return self._from_request(job, etag)

    def _from_request(self, request: Event, etag: str) -> UploadedVideo:
        options = {name: value for name, value in request.items() if name not in ("s3_bucket", "s3_video_key")}
        if options.get("task") == LIPSYNC_TASK:
            options.setdefault("s3_output_prefix", self.settings.output_prefix)
        return UploadedVideo(request["s3_bucket"], request["s3_video_key"], etag, options, is_direct=True)

    def send(self, video: UploadedVideo) -> Outcome:
        """Send the request, unless it is not for a video or was sent before."""
        found = {"s3_bucket": video.bucket, "s3_video_key": video.key, "id": video.id}
        reason = reason_to_skip(video, self.settings)
        if reason:
            return found | {"status": "skipped", "reason": reason}
        if not self._claims.claim(video):
            return found | {"status": "duplicate"}
        try:
            sent = self._invoke_async(video) if self.settings.mode == "async" else self._invoke(video)
        except (ClientError, BotoCoreError, ValueError):
            # If the call succeeded and only its answer was lost, the retry sends it again under the same id.
            self._claims.release(video)
            raise
        self._claims.confirm(video, sent["status"])
        return found | sent

    def _invoke_async(self, video: UploadedVideo) -> Outcome:
        """Write the request to S3 and queue its location; the video itself does not pass through this function.

        The boto3 in Lambda may not support the call's inline Body yet, so it is not used.
        """
        key = request_key(video, self.settings)
        self._s3.put_object(Bucket=video.bucket, Key=key, Body=video.body, ContentType=JSON)
        answer = self._endpoint.invoke_endpoint_async(
            EndpointName=self.settings.endpoint,
            InputLocation=f"s3://{video.bucket}/{key}",
            ContentType=JSON,
            Accept=JSON,
            InferenceId=video.id,
            InvocationTimeoutSeconds=INVOCATION_TIMEOUT_S,
        )
        return {"status": "invoked", "output_location": answer.get("OutputLocation")}

    def _invoke(self, video: UploadedVideo) -> Outcome:
        """Wait for the answer and store it; a permanent error is stored as an answer, too."""
        try:
            reply = self._endpoint.invoke_endpoint(
                EndpointName=self.settings.endpoint,
                Body=video.body,
                ContentType=JSON,
                Accept=JSON,
                InferenceId=video.id,
            )
            answer, status = json.loads(reply["Body"].read()), "succeeded"
        except ClientError as err:
            if not is_permanent(err):
                raise
            answer, status = error_body(err), "failed"
        key = result_key(video, self.settings)
        record: Outcome = {"inference_id": video.id, "s3_bucket": video.bucket, "s3_video_key": video.key}
        record |= {"status": answer.get("status", "success"), "finished_at": int(time.time())}
        record |= {"answer": answer} if status == "succeeded" else {"error": answer["error"]}
        self._s3.put_object(Bucket=video.bucket, Key=key, Body=json.dumps(record).encode(), ContentType=JSON)
        return {"status": status, "output_location": f"s3://{video.bucket}/{key}", "answer": answer}


def reason_to_skip(video: UploadedVideo, settings: Settings) -> str | None:
    """Return why a video is not processed; None if it is."""
    if video.is_direct:
        return None
    if not video.key.startswith(settings.input_prefix):
        return f"not in {settings.input_prefix}"
    if PurePosixPath(video.key).suffix.lower() not in VIDEO_SUFFIXES:
        return "file name is not that of a video"
    return None


def is_permanent(err: ClientError) -> bool:
    """Return whether the container rejected the request itself, so that a retry would fail the same way.

    Viseme's own server and the stock image's have the same statuses: 5xx for faults of the endpoint, 4xx for faults of
    the request. Anything that the container did not answer is SageMaker's fault, which may pass.
    """
    response: Mapping[str, Any] = err.response
    status = int(response.get("OriginalStatusCode", 500))
    return response["Error"]["Code"] == "ModelError" and 400 <= status < 500 and status not in RETRYABLE_STATUSES


def error_body(err: ClientError) -> Outcome:
    """Return the container's own error body: {"status":"error","error":{"code","message"}}."""
    text = str(err.response.get("OriginalMessage", err))
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        return found
    return {"status": "error", "error": {"code": "model_error", "message": text}}


class DynamoDbClaims:
    """Claims as items of a DynamoDB table; `on_result` completes them."""

    def __init__(self, table: str) -> None:
        self._table: Client = boto3.resource("dynamodb").Table(table)
        self._claimed_at: dict[str, int] = {}

    def claim(self, video: UploadedVideo) -> bool:
        now = time.time_ns()
        item = {"id": video.id, "state": "claimed", "claimed_at": now, "expires_at": now // 10**9 + RETENTION_S}
        item |= {"s3_bucket": video.bucket, "s3_video_key": video.key, "etag": video.etag}
        values = {":claimed": "claimed", ":expired": now - LEASE_S * 10**9, ":retryable": "retryable"}
        # `on_result` sets "retryable" after a fault that may pass.
        free = "attribute_not_exists(id) OR (#state = :claimed AND claimed_at < :expired) OR #state = :retryable"
        if not self._write_if(
            self._table.put_item,
            Item=item,
            ConditionExpression=free,
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=values,
        ):
            return False
        self._claimed_at[video.id] = now
        return True

    def confirm(self, video: UploadedVideo, state: str) -> None:
        # If the result arrived first, or another function took over, that state is kept.
        self._write_if(
            self._table.update_item,
            Key={"id": video.id},
            UpdateExpression="SET #state = :state",
            **self._own_claim(video, {":state": state}),
        )

    def release(self, video: UploadedVideo) -> None:
        self._write_if(self._table.delete_item, Key={"id": video.id}, **self._own_claim(video))

    def _own_claim(self, video: UploadedVideo, values: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the condition that the claim is still the one made by this object."""
        mine = {":claimed": "claimed", ":mine": self._claimed_at[video.id]}
        return {
            "ConditionExpression": "#state = :claimed AND claimed_at = :mine",
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": mine | (values or {}),
        }

    @staticmethod
    def _write_if(write: Any, **call: Any) -> bool:
        """Make a conditional write; return whether its condition held."""
        try:
            write(**call)
        except ClientError as err:
            if err.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True


class S3Claims:
    """The request object as the claim: S3 writes it only if it does not exist."""

    def __init__(self, s3: Client, settings: Settings) -> None:
        self._s3 = s3
        self._settings = settings

    def claim(self, video: UploadedVideo) -> bool:
        key = request_key(video, self._settings)
        try:
            self._s3.put_object(Bucket=video.bucket, Key=key, Body=video.body, ContentType=JSON, IfNoneMatch="*")
        except ClientError as err:
            if err.response["Error"]["Code"] not in CONFLICT_CODES:
                raise
            return False
        return True

    def confirm(self, video: UploadedVideo, state: str) -> None:
        """Do nothing: the object itself is the record."""

    def release(self, video: UploadedVideo) -> None:
        self._s3.delete_object(Bucket=video.bucket, Key=request_key(video, self._settings))


def request_key(video: UploadedVideo, settings: Settings) -> str:
    return f"{settings.request_prefix}{video.id}.json"


def result_key(video: UploadedVideo, settings: Settings) -> str:
    """'uploads/a/b.mp4' -> 'results/a/b.mp4.json', with an audio file '....mp4.c.wav.json', as in `on_result`."""
    return f"{settings.output_prefix}{video.result_name.removeprefix(settings.input_prefix)}.json"


def as_folder(prefix: str) -> str:
    return prefix.strip("/") + "/"


def strip_quotes(etag: str) -> str:
    """Remove the quotes that HTTP puts around an ETag; events contain it without them."""
    return etag.strip('"')
