"""Sends each uploaded video to the endpoint once: on events from S3, EventBridge or SQS, or when called directly.

Once means once for the same bucket, key, ETag and options: if the same bytes are uploaded again after others, the
first job's record is published again. The request names the version to read.

If TABLE_NAME names a DynamoDB table, a conditional put there decides, otherwise an object that S3 writes only if it
does not exist. If the function is killed before it called the endpoint, its claim expires, and a retry of the event
takes it over.

To lip-sync a face to an audio file, upload both, then a file NAME.job.json with the body of the request.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_plus

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from jobs.claims import ClaimStore, DynamoDbClaims, JobInFlight, S3Claims
from jobs.expired import INVOCATION_TIMEOUT, REQUEST_TTL
from jobs.job_form import check_job_body, format_time, job_fields
from jobs.records import (
    JSON,
    ObjectPath,
    Prefixes,
    WriteConflict,
    publish,
    put_if_newer,
    read_record,
    renew_request,
    store_result,
)
from jobs.uploads import UploadedVideo
from jobs.version import UploadVersion

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

Event = dict[str, Any]
Outcome = dict[str, Any]
Client = Any  # boto3 creates its classes at run time

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
VIDEO_SUFFIXES |= {".flv", ".wmv", ".asf", ".ogv", ".mxf", ".3gp", ".gif"}
JOB_SUFFIX = ".job.json"
MAX_JOB_BYTES = 64 << 10
LIPSYNC_TASK = "lipsync"
VERSION = "version"  # field of a request that `on_result` put into the dead-letter queue
REALTIME_TIMEOUT_S = 60  # SageMaker's limit for one real-time invocation
# Statuses below 500 that a retry may not get: a slow body, too early, too many requests, a caller that disconnected.
RETRYABLE_STATUSES = frozenset({408, 425, 429, 499})


class VideosFailed(Exception):
    """Some videos could not be sent. Raised so that Lambda retries the event and finally moves it to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """The function's environment variables."""

    endpoint: str
    mode: str
    prefixes: Prefixes
    table: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. Raises: ValueError naming the variable that is missing or invalid."""
        if not env.get("ENDPOINT_NAME"):
            raise ValueError("ENDPOINT_NAME is not set")
        settings = cls(
            endpoint=env["ENDPOINT_NAME"],
            mode=env.get("MODE") or "async",
            prefixes=Prefixes.from_env(env),
            table=env.get("TABLE_NAME") or None,
        )
        if settings.mode not in ("async", "realtime"):
            raise ValueError(f"MODE={settings.mode}: expected async or realtime")
        prefixes = settings.prefixes
        for prefix in (prefixes.results, prefixes.requests):
            if prefix.startswith(prefixes.uploads):  # our own output would trigger this function again, endlessly
                raise ValueError(f"{prefix} is inside INPUT_PREFIX {prefixes.uploads}")
        return settings


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
        except (ClientError, BotoCoreError, WriteConflict, JobInFlight, KeyError, ValueError) as err:
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
        self._prefixes = settings.prefixes
        self._s3: Client = boto3.client("s3")
        # boto3 would repeat a call that timed out, and the endpoint would do the work twice: Lambda retries instead.
        once = Config(read_timeout=REALTIME_TIMEOUT_S + 5, retries={"mode": "standard", "total_max_attempts": 1})
        self._endpoint: Client = boto3.client("sagemaker-runtime", config=once)
        self._claims: ClaimStore = (
            DynamoDbClaims(settings.table) if settings.table else S3Claims(self._s3, settings.prefixes)
        )

    def read_record(self, record: Event) -> UploadedVideo:
        """Return the video that a record names.

        Raises: KeyError if a field is missing; ValueError if a job file is invalid.
        """
        if "s3" in record:
            found = record["s3"]
            # S3 encodes keys in its own notifications; EventBridge events contain them unencoded.
            return self._read_upload(found["bucket"]["name"], unquote_plus(found["object"]["key"]), record)
        if "detail" in record:
            return self._read_upload(record["detail"]["bucket"]["name"], record["detail"]["object"]["key"], record)
        if VERSION in record:
            request = {name: value for name, value in record.items() if name != VERSION}
            return self._from_request(request, UploadVersion(**record[VERSION]))
        check_job_body(record)
        of_version = {"VersionId": record["s3_version_id"]} if record.get("s3_version_id") else {}
        found = self._s3.head_object(Bucket=record["s3_bucket"], Key=record["s3_video_key"], **of_version)
        version = UploadVersion.of_key(
            record["s3_video_key"],
            strip_quotes(found["ETag"]),
            version_id=found.get("VersionId"),
            current_at_ms=time.time_ns() // 10**6,
        )
        return self._from_request(record, version)

    def _read_upload(self, bucket: str, key: str, record: Event) -> UploadedVideo:
        """Return the uploaded video, or the one that an uploaded job file names.

        Raises: ValueError or KeyError if the job file is invalid.
        """
        version = version_of(key, record)
        if not (key.startswith(self._prefixes.uploads) and key.endswith(JOB_SUFFIX)):
            return UploadedVideo(bucket, key, version)
        # Of the version that the event names: a newer one has an event of its own.
        of_version = {"VersionId": version.version_id} if version.version_id else {}
        reply = self._s3.get_object(Bucket=bucket, Key=key, **of_version)
        if reply["ContentLength"] > MAX_JOB_BYTES:
            raise ValueError(f"{key}: {reply['ContentLength']} bytes; a job has at most {MAX_JOB_BYTES}")
        job = json.loads(reply["Body"].read())
        if not isinstance(job, dict) or job.setdefault("s3_bucket", bucket) != bucket:
            raise ValueError(f"{key}: expected a JSON object with files in the bucket {bucket}")
        return self._from_request(job, version)

    def _from_request(self, request: Event, version: UploadVersion) -> UploadedVideo:
        """Return the video that a body of `POST /v1/jobs` names. Raises: ValueError, KeyError."""
        check_job_body(request)
        named = ("s3_bucket", "s3_video_key", *version.record_fields)
        options = {name: value for name, value in request.items() if name not in named}
        if options.get("task") == LIPSYNC_TASK:
            options.setdefault("s3_output_prefix", self._prefixes.results)
        return UploadedVideo(request["s3_bucket"], request["s3_video_key"], version, options, is_direct=True)

    def send(self, video: UploadedVideo) -> Outcome:
        """Send the request, unless it is not for a video or was sent before."""
        found = {"s3_bucket": video.bucket, "s3_video_key": video.key, "id": video.id}
        reason = reason_to_skip(video, self.settings)
        if reason:
            return found | {"status": "skipped", "reason": reason}
        if not self._claims.claim(video):
            self._renew(video)
            return found | {"status": "duplicate"}
        try:
            put_if_newer(self._s3, self._request_of(video), video.body, video.version)
            sent = self._invoke_async(video) if self.settings.mode == "async" else self._invoke(video)
        except (ClientError, BotoCoreError, WriteConflict, ValueError):
            # If the call succeeded and only its answer was lost, the retry sends it again under the same id.
            self._claims.release(video)
            self._s3.delete_object(Bucket=video.bucket, Key=self._prefixes.waiting_key(video.id))
            raise
        self._claims.confirm(video, sent["status"])
        return found | sent

    def _renew(self, video: UploadedVideo) -> None:
        """Note that bytes which are being processed, or have been, are now a newer version of their video."""
        if not renew_request(self._s3, self._request_of(video), video.body, video.version):
            return
        record = read_record(self._s3, video.bucket, self._prefixes.record_key(video.id))
        if record:
            publish(self._s3, self._result_of(video), record, video.version)

    def _request_of(self, video: UploadedVideo) -> ObjectPath:
        return ObjectPath(video.bucket, self._prefixes.request_key(video.id))

    def _result_of(self, video: UploadedVideo) -> ObjectPath:
        return ObjectPath(video.bucket, self._prefixes.result_key(video.key, video.options.get("s3_audio_key")))

    def _invoke_async(self, video: UploadedVideo) -> Outcome:
        """Queue the location of the request; the video itself does not pass through this function.

        An object under requests/waiting/ lasts until its result arrives: `on_result` finds requests that expired by it.
        The boto3 in Lambda may not support the call's inline Body yet, so it is not used.
        """
        self._s3.put_object(Bucket=video.bucket, Key=self._prefixes.waiting_key(video.id), Body=b"")
        answer = self._endpoint.invoke_endpoint_async(
            EndpointName=self.settings.endpoint,
            InputLocation=f"s3://{video.bucket}/{self._request_of(video).key}",
            ContentType=JSON,
            Accept=JSON,
            InferenceId=video.id,
            RequestTTLSeconds=int(REQUEST_TTL.total_seconds()),
            InvocationTimeoutSeconds=int(INVOCATION_TIMEOUT.total_seconds()),
        )
        return {"status": "invoked", "output_location": answer.get("OutputLocation")}

    def _invoke(self, video: UploadedVideo) -> Outcome:
        """Wait for the answer and store it; a permanent error is stored as an answer, too."""
        started_at = datetime.now(UTC)
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
        record: Outcome = {"inference_id": video.id, "s3_bucket": video.bucket, "s3_video_key": video.key}
        record |= {"status": answer.get("status", "success"), "finished_at": format_time(datetime.now(UTC))}
        record |= {"answer": answer} if status == "succeeded" else {"error": answer["error"]}
        record |= job_fields(record, json.loads(video.body), started_at)
        target = self._result_of(video)
        store_result(self._s3, self._prefixes, target, record, video.version)
        return {"status": status, "output_location": f"s3://{target.bucket}/{target.key}", "answer": answer}


def reason_to_skip(video: UploadedVideo, settings: Settings) -> str | None:
    """Return why a video is not processed; None if it is."""
    if video.is_direct:
        return None
    if not video.key.startswith(settings.prefixes.uploads):
        return f"not in {settings.prefixes.uploads}"
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


def version_of(key: str, record: Event) -> UploadVersion:
    """Return the version that an event names. Raises: KeyError if a field is missing; ValueError for a wrong time."""
    if "s3" in record:
        found, time_ = record["s3"]["object"], record.get("eventTime")
        etag, version_id = found["eTag"], found.get("versionId")
    else:
        found, time_ = record["detail"]["object"], record.get("time")
        etag, version_id = found.get("etag") or found["eTag"], found.get("version-id")  # moto's spelling
    current_at_ms = int(datetime.fromisoformat(time_).timestamp() * 1000) if time_ else 0
    return UploadVersion.of_key(key, strip_quotes(etag), version_id, found.get("sequencer"), current_at_ms)


def strip_quotes(etag: str) -> str:
    """Remove the quotes that HTTP puts around an ETag; events contain it without them."""
    return etag.strip('"')
