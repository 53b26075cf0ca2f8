"""Sends each uploaded film to the endpoint, once: from S3, from EventBridge, from a queue, or called directly.

Once means once for the same bucket, key, ETag and options. Where TABLE_NAME names a DynamoDB table, a conditional
put there decides; a claim whose function was killed before it called the endpoint lapses after LEASE_S, and the
event's own retry takes it over. Without a table the request object in S3 decides, written only where there is none:
two events for one film still make one call, but a function killed between claim and call leaves the film unread
until `requests/ID.json` is deleted.

A face and a voice are lip-synced by a file NAME.job.json put beside them, which holds the request's body.
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
Client = Any  # boto3 makes its classes while it runs

JSON = "application/json"
FILM_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
JOB_SUFFIX = ".job.json"
MAX_JOB_BYTES = 64 << 10
LIPSYNC = "lipsync"
FILM_SUFFIXES |= {".flv", ".wmv", ".asf", ".ogv", ".mxf", ".3gp", ".gif"}
REALTIME_S = 60  # SageMaker's bound on one real-time invocation
LEASE_S = 120  # longer than the function may run (90 s); over before Lambda's first retry (60 s after that)
KEEP_S = 30 * 24 * 3600  # as long as the template keeps request objects
PASSING = frozenset({408, 429})  # statuses below 500 that may go well another time
CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class FilmsFailed(Exception):
    """Some films could not be sent. Raised, so that Lambda tries the event again and then hands it to the DLQ."""


@dataclass(frozen=True)
class Settings:
    """How this function is deployed."""

    endpoint: str
    mode: str
    input_prefix: str
    output_prefix: str
    request_prefix: str
    table: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises: ValueError naming the variable that is missing or wrong."""
        if not env.get("ENDPOINT_NAME"):
            raise ValueError("ENDPOINT_NAME is not set")
        found = cls(
            endpoint=env["ENDPOINT_NAME"],
            mode=env.get("MODE") or "async",
            input_prefix=as_folder(env.get("INPUT_PREFIX") or "uploads/"),
            output_prefix=as_folder(env.get("OUTPUT_PREFIX") or "results/"),
            request_prefix=as_folder(env.get("REQUEST_PREFIX") or "requests/"),
            table=env.get("TABLE_NAME") or None,
        )
        if found.mode not in ("async", "realtime"):
            raise ValueError(f"MODE={found.mode}: expected async or realtime")
        for prefix in (found.output_prefix, found.request_prefix):
            if prefix.startswith(found.input_prefix):  # what we write would call us again, for ever
                raise ValueError(f"{prefix} lies in INPUT_PREFIX {found.input_prefix}")
        return found


@dataclass(frozen=True)
class Film:
    """A film to be read, at one state of its content.

    options: further fields of the request body, as the endpoint knows them.
    is_asked_for: named by a direct call, which no prefix or type keeps out.
    """

    bucket: str
    key: str
    etag: str
    options: dict[str, Any] = field(default_factory=dict)
    is_asked_for: bool = False

    @property
    def id(self) -> str:
        """64 hexadecimal digits, the longest InferenceId there may be."""
        parts = [self.bucket, self.key, self.etag, self.options]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def body(self) -> bytes:
        """The request as the endpoint takes it."""
        return json.dumps({"s3_bucket": self.bucket, "s3_video_key": self.key, **self.options}).encode()

    @property
    def name(self) -> str:
        """What its result is called by: one face may say many things."""
        voice = self.options.get("s3_audio_key")
        return f"{self.key}.{PurePosixPath(voice).name}" if voice else self.key

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Claims(Protocol):
    """Who sends a film: the first to claim it."""

    def claim(self, film: Film) -> bool:
        """Whether the film is the caller's to send."""

    def confirm(self, film: Film, state: str) -> None:
        """The endpoint has it: nobody takes it over."""

    def release(self, film: Film) -> None:
        """It could not be sent: whoever comes next may."""


def handler(event: Event, _context: object) -> Outcome:
    """Send what the event names.

    Returns: {"results": [...]}, one for each film; for a batch from SQS {"batchItemFailures": [...]}.
    Raises: FilmsFailed after all films were tried, where some failed; those sent are not sent again.
    """
    sender = Sender(Settings.from_env(os.environ))
    messages = [one for one in event.get("Records", []) if one.get("eventSource") == "aws:sqs"]
    if not messages:
        return {"results": send_all(sender, event)}
    failed = []
    for message in messages:
        try:
            send_all(sender, json.loads(message["body"]))
        except (FilmsFailed, ValueError):
            logger.exception("message %s goes back to its queue", message["messageId"])
            failed.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failed}


def send_all(sender: Sender, event: Event) -> list[Outcome]:
    """Every film of an event is tried, whatever became of the one before it."""
    outcomes: list[Outcome] = []
    failures = []
    records = records_of(event)
    for record in records:
        try:
            outcome = sender.send(sender.film_of(record))
        except (ClientError, BotoCoreError, KeyError, ValueError) as err:
            logger.exception("not sent: %s", json.dumps(record, default=str)[:2000])
            failures.append(f"{name_of(record)}: {type(err).__name__}: {err}")
            continue
        logger.info(json.dumps(outcome))
        outcomes.append(outcome)
    if failures:
        raise FilmsFailed(f"{len(failures)} of {len(records)} failed: " + "; ".join(failures))
    return outcomes


def records_of(event: Event) -> list[Event]:
    """The single records of an event. Raises: ValueError where it is of no kind we know."""
    if event.get("Event") == "s3:TestEvent":
        return []  # S3 sends it when a notification is set up
    if "Records" in event:
        return [one for one in event["Records"] if "ObjectCreated" in one.get("eventName", "ObjectCreated")]
    if event.get("source") == "aws.s3":
        return [event] if event.get("detail-type") == "Object Created" else []
    if "s3_bucket" in event:
        return [event]
    raise ValueError(f"an event with {sorted(event)}: expected one of S3, of EventBridge, or s3_bucket, s3_video_key")


def name_of(record: Event) -> str:
    """What a record is about, for messages."""
    where = record.get("s3") or record.get("detail") or {}
    return str(where.get("object", {}).get("key") or record.get("s3_video_key") or "a record without a key")


class Sender:
    """Sends films to the endpoint of this deployment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._s3: Client = boto3.client("s3")
        # boto3 would repeat a call that took too long, and the endpoint do the work twice: Lambda retries instead.
        once = Config(read_timeout=REALTIME_S + 5, retries={"mode": "standard", "total_max_attempts": 1})
        self._endpoint: Client = boto3.client("sagemaker-runtime", config=once)
        self._claims: Claims = ClaimsInTable(settings.table) if settings.table else ClaimsInS3(self._s3, settings)

    def film_of(self, record: Event) -> Film:
        """The film that a record names. Raises: KeyError where a field is missing."""
        if "s3" in record:
            found = record["s3"]
            # S3 encodes keys in its own notifications, and EventBridge's carry them as they are.
            key = unquote_plus(found["object"]["key"])
            return self._film_at(found["bucket"]["name"], key, clean(found["object"]["eTag"]))
        if "detail" in record:
            found = record["detail"]
            etag = found["object"].get("etag") or found["object"]["eTag"]  # moto's spelling
            return self._film_at(found["bucket"]["name"], found["object"]["key"], clean(etag))
        etag = self._s3.head_object(Bucket=record["s3_bucket"], Key=record["s3_video_key"])["ETag"]
        return self._asked_for(record, clean(etag))

    def _film_at(self, bucket: str, key: str, etag: str) -> Film:
        """An uploaded film, or the one that an uploaded job names. Raises: ValueError, KeyError for no job."""
        if not (key.startswith(self.settings.input_prefix) and key.endswith(JOB_SUFFIX)):
            return Film(bucket, key, etag)
        reply = self._s3.get_object(Bucket=bucket, Key=key)
        if reply["ContentLength"] > MAX_JOB_BYTES:
            raise ValueError(f"{key}: {reply['ContentLength']} bytes; a job has at most {MAX_JOB_BYTES}")
        job = json.loads(reply["Body"].read())
        if not isinstance(job, dict) or job.setdefault("s3_bucket", bucket) != bucket:
            raise ValueError(f"{key}: expected a JSON object with files in the bucket {bucket}")
        return self._asked_for(job, etag)

    def _asked_for(self, asked: Event, etag: str) -> Film:
        options = {name: value for name, value in asked.items() if name not in ("s3_bucket", "s3_video_key")}
        if options.get("task") == LIPSYNC:
            options.setdefault("s3_output_prefix", self.settings.output_prefix)
        return Film(asked["s3_bucket"], asked["s3_video_key"], etag, options, is_asked_for=True)

    def send(self, film: Film) -> Outcome:
        """Send a film, unless it is none, or was sent before."""
        found = {"s3_bucket": film.bucket, "s3_video_key": film.key, "id": film.id}
        reason = reason_to_skip(film, self.settings)
        if reason:
            return found | {"status": "skipped", "reason": reason}
        if not self._claims.claim(film):
            return found | {"status": "duplicate"}
        try:
            sent = self._invoke_async(film) if self.settings.mode == "async" else self._invoke(film)
        except (ClientError, BotoCoreError, ValueError):
            # Where the call went through and only its answer was lost, the retry sends it again under the same id.
            self._claims.release(film)
            raise
        self._claims.confirm(film, sent["status"])
        return found | sent

    def _invoke_async(self, film: Film) -> Outcome:
        """The request goes to S3, and its address to the queue: the film itself never passes through here.

        The boto3 that Lambda brings may not know the call's inline Body yet, so it isn't used.
        """
        key = request_key(film, self.settings)
        self._s3.put_object(Bucket=film.bucket, Key=key, Body=film.body, ContentType=JSON)
        answer = self._endpoint.invoke_endpoint_async(
            EndpointName=self.settings.endpoint,
            InputLocation=f"s3://{film.bucket}/{key}",
            ContentType=JSON,
            Accept=JSON,
            InferenceId=film.id,
        )
        return {"status": "invoked", "output_location": answer.get("OutputLocation")}

    def _invoke(self, film: Film) -> Outcome:
        """Wait for the answer and store it. A request that is wrong in itself is an answer, too."""
        try:
            reply = self._endpoint.invoke_endpoint(
                EndpointName=self.settings.endpoint,
                Body=film.body,
                ContentType=JSON,
                Accept=JSON,
                InferenceId=film.id,
            )
            answer, status = json.loads(reply["Body"].read()), "succeeded"
        except ClientError as err:
            if not is_final(err):
                raise
            answer, status = refusal_of(err), "failed"
        key = result_key(film, self.settings)
        record: Outcome = {"inference_id": film.id, "s3_bucket": film.bucket, "s3_video_key": film.key}
        record |= {"status": answer.get("status", "success"), "finished_at": int(time.time())}
        record |= {"answer": answer} if status == "succeeded" else {"error": answer["error"]}
        self._s3.put_object(Bucket=film.bucket, Key=key, Body=json.dumps(record).encode(), ContentType=JSON)
        return {"status": status, "output_location": f"s3://{film.bucket}/{key}", "answer": answer}


def reason_to_skip(film: Film, settings: Settings) -> str | None:
    """Why a film isn't ours to read; None where it is."""
    if film.is_asked_for:
        return None
    if not film.key.startswith(settings.input_prefix):
        return f"not in {settings.input_prefix}"
    if PurePosixPath(film.key).suffix.lower() not in FILM_SUFFIXES:
        return "not a film by its name"
    return None


def is_final(err: ClientError) -> bool:
    """Whether the container refused the request itself, so that another try would end the same."""
    response: Mapping[str, Any] = err.response
    status = int(response.get("OriginalStatusCode", 500))
    return response["Error"]["Code"] == "ModelError" and 400 <= status < 500 and status not in PASSING


def refusal_of(err: ClientError) -> Outcome:
    """The container's own error, in its form: {"status":"error","error":{"code","message"}}."""
    text = str(err.response.get("OriginalMessage", err))
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        return found
    return {"status": "error", "error": {"code": "model_error", "message": text}}


class ClaimsInTable:
    """Claims as items of a DynamoDB table; `on_result` completes them."""

    def __init__(self, table: str) -> None:
        self._table: Client = boto3.resource("dynamodb").Table(table)
        self._claimed_at: dict[str, int] = {}

    def claim(self, film: Film) -> bool:
        now = time.time_ns()
        item = {"id": film.id, "state": "claimed", "claimed_at": now, "expires_at": now // 10**9 + KEEP_S}
        item |= {"s3_bucket": film.bucket, "s3_video_key": film.key, "etag": film.etag}
        lapsed = {":claimed": "claimed", ":lapsed": now - LEASE_S * 10**9}
        free = "attribute_not_exists(id) OR (#state = :claimed AND claimed_at < :lapsed)"
        if not self._unless_taken(
            self._table.put_item,
            Item=item,
            ConditionExpression=free,
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=lapsed,
        ):
            return False
        self._claimed_at[film.id] = now
        return True

    def confirm(self, film: Film, state: str) -> None:
        # Where the result came first, or another function took over, theirs stands.
        self._unless_taken(
            self._table.update_item,
            Key={"id": film.id},
            UpdateExpression="SET #state = :state",
            **self._if_mine(film, {":state": state}),
        )

    def release(self, film: Film) -> None:
        self._unless_taken(self._table.delete_item, Key={"id": film.id}, **self._if_mine(film))

    def _if_mine(self, film: Film, values: dict[str, Any] | None = None) -> dict[str, Any]:
        """The condition that the claim is still the one that this object made."""
        mine = {":claimed": "claimed", ":mine": self._claimed_at[film.id]}
        return {
            "ConditionExpression": "#state = :claimed AND claimed_at = :mine",
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": mine | (values or {}),
        }

    @staticmethod
    def _unless_taken(write: Any, **call: Any) -> bool:
        """Whether a conditional write's condition held."""
        try:
            write(**call)
        except ClientError as err:
            if err.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True


class ClaimsInS3:
    """The request object is the claim: S3 writes it only where there is none."""

    def __init__(self, s3: Client, settings: Settings) -> None:
        self._s3 = s3
        self._settings = settings

    def claim(self, film: Film) -> bool:
        key = request_key(film, self._settings)
        try:
            self._s3.put_object(Bucket=film.bucket, Key=key, Body=film.body, ContentType=JSON, IfNoneMatch="*")
        except ClientError as err:
            if err.response["Error"]["Code"] not in CONFLICTS:
                raise
            return False
        return True

    def confirm(self, film: Film, state: str) -> None:
        """The object stays where it is: nothing is left to say."""

    def release(self, film: Film) -> None:
        self._s3.delete_object(Bucket=film.bucket, Key=request_key(film, self._settings))


def request_key(film: Film, settings: Settings) -> str:
    return f"{settings.request_prefix}{film.id}.json"


def result_key(film: Film, settings: Settings) -> str:
    """'uploads/a/b.mp4' -> 'results/a/b.mp4.json', or with a voice '....mp4.c.wav.json', as `on_result` names it."""
    return f"{settings.output_prefix}{film.name.removeprefix(settings.input_prefix)}.json"


def as_folder(prefix: str) -> str:
    return prefix.strip("/") + "/"


def clean(etag: str) -> str:
    """HTTP puts ETags in quotes; events don't."""
    return etag.strip('"')
