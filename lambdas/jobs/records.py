"""Records of jobs in S3: each job's own, and the newest version's under the name of the video.

`requests/ID.json` is the request, `requests/ID.result.json` the record of that job, whatever became of the video
since, and `results/NAME.json` the record of the newest version. Each function writes its own object first and then
reads the other's, so that one of two that run at the same time has both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from botocore.exceptions import ClientError
from jobs.version import UploadVersion

Client = Any  # boto3 creates its classes at run time
Record = dict[str, Any]

JSON = "application/json"
JSON_SUFFIX = ".json"
RECORD_SUFFIX = ".result.json"
MAX_KEY_BYTES = 1024  # S3's limit
STATUS = "status"  # of the job, in the metadata of its record
SUCCESS = "success"
# What S3 answers if the object exists, was replaced, is being written, or was deleted meanwhile.
CONFLICT_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})
MISSING_CODES = frozenset({"NoSuchKey", "404"})
MAX_WRITE_ATTEMPTS = 10  # each fails only if another one succeeded


class WriteConflict(Exception):
    """An object was replaced at each attempt to write it."""


@dataclass(frozen=True)
class Prefixes:
    """Where uploads lie, and where requests and results are written. Each ends with a slash."""

    uploads: str
    results: str
    requests: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Prefixes:
        return cls(
            uploads=as_folder(env.get("INPUT_PREFIX") or "uploads/"),
            results=as_folder(env.get("OUTPUT_PREFIX") or "results/"),
            requests=as_folder(env.get("REQUEST_PREFIX") or "requests/"),
        )

    def request_key(self, job_id: str) -> str:
        return f"{self.requests}{job_id}{JSON_SUFFIX}"

    def record_key(self, job_id: str) -> str:
        return f"{self.requests}{job_id}{RECORD_SUFFIX}"

    def claim_key(self, job_id: str) -> str:
        """Return the key of the claim, if there is no table of claims."""
        return f"{self.requests}claims/{job_id}"

    def waiting_key(self, job_id: str) -> str:
        """Return the key of the object that exists while the endpoint has the request."""
        return f"{self.waiting}{job_id}"

    @property
    def waiting(self) -> str:
        return f"{self.requests}waiting/"

    def result_key(self, video_key: str, audio_key: str | None = None) -> str:
        """'uploads/a/b.mp4' -> 'results/a/b.mp4.json', with audio '....mp4.c.wav.json'.

        A face may be synced to several. S3 allows 1024 bytes: the end of a longer name is replaced by its hash.
        """
        audio_name = f".{PurePosixPath(audio_key).name}" if audio_key else ""
        key = f"{self.results}{video_key.removeprefix(self.uploads)}{audio_name}"
        if len(key.encode()) + len(JSON_SUFFIX) > MAX_KEY_BYTES:
            end = f".{hashlib.sha256(key.encode()).hexdigest()}"
            key = key.encode()[: MAX_KEY_BYTES - len(JSON_SUFFIX) - len(end)].decode(errors="ignore") + end
        return key + JSON_SUFFIX


@dataclass(frozen=True)
class ObjectPath:
    """Where an object is to be written."""

    bucket: str
    key: str


def store_result(s3: Client, prefixes: Prefixes, target: ObjectPath, record: Record, version: UploadVersion) -> bool:
    """Store a job's record, and publish it under the video's name unless that has a newer version's.

    target: the result. record: without the version; its inference_id is the job's.
    version: the one that was sent; a later upload of the same bytes may have replaced it in the request.
    Returns: False if the job has succeeded before and this is a failure: notifications may arrive in any order.
    Raises: ClientError, WriteConflict.
    """
    job_id, status = str(record["inference_id"]), str(record["status"])
    is_stored = put_unless(
        s3,
        ObjectPath(target.bucket, prefixes.record_key(job_id)),
        json.dumps(record | version.record_fields).encode(),
        {STATUS: status} | version.metadata,
        lambda found: found.get(STATUS) == SUCCESS != status,
    )
    if is_stored:
        request = find_object(s3, target.bucket, prefixes.request_key(job_id))
        newest = UploadVersion.from_metadata(request["Metadata"]) if request else version
        publish(s3, target, record, version if newest.is_older_than(version) else newest)
    return is_stored


def publish(s3: Client, target: ObjectPath, record: Record, version: UploadVersion) -> bool:
    """Write a record under the video's name; return False if that has a newer version's."""
    return put_if_newer(s3, target, json.dumps(record | version.record_fields).encode(), version)


def renew_request(s3: Client, target: ObjectPath, body: bytes, version: UploadVersion) -> bool:
    """Replace a request by one for a newer version of the same bytes.

    Returns: whether it was written; the record of the job, if it has one, is then to be published again.
    """
    return put_unless(
        s3,
        target,
        body,
        version.metadata,
        lambda found: not UploadVersion.from_metadata(found).is_older_than(version),
    )


def read_record(s3: Client, bucket: str, key: str) -> Record | None:
    """Return a job's record without the version; None if it has none yet. Raises: ClientError."""
    if find_object(s3, bucket, key) is None:
        return None
    record: Record = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return record


def put_if_newer(s3: Client, target: ObjectPath, body: bytes, version: UploadVersion) -> bool:
    """Write an object unless the one that exists is of a newer version. Returns: whether it was written."""
    return put_unless(
        s3, target, body, version.metadata, lambda found: version.is_older_than(UploadVersion.from_metadata(found))
    )


def put_unless(
    s3: Client,
    target: ObjectPath,
    body: bytes,
    metadata: Mapping[str, str],
    keeps: Callable[[Mapping[str, str]], bool],
) -> bool:
    """Write an object unless the one that exists is to be kept, which its metadata decide.

    The writes are conditional: if another one is made meanwhile, it is compared, too.
    Returns: whether it was written. Raises: ClientError, WriteConflict.
    """
    call = {"Bucket": target.bucket, "Key": target.key, "Body": body, "ContentType": JSON}
    for _ in range(MAX_WRITE_ATTEMPTS):
        found = find_object(s3, target.bucket, target.key)
        if found is not None and keeps(found["Metadata"]):
            return False
        condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found["ETag"]}
        if put_if(s3, **call, **condition, Metadata=dict(metadata)):
            return True
    raise WriteConflict(f"s3://{target.bucket}/{target.key}: replaced {MAX_WRITE_ATTEMPTS} times while it was written")


def put_if(s3: Client, **call: Any) -> bool:
    """Make a conditional write; return whether its condition held. Raises: ClientError."""
    try:
        s3.put_object(**call)
    except ClientError as err:
        if err.response["Error"]["Code"] not in CONFLICT_CODES:
            raise
        return False
    return True


def find_object(s3: Client, bucket: str, key: str) -> Record | None:
    """Return S3's description of an object, or None if it does not exist. Raises: ClientError."""
    try:
        found: Record = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as err:
        if err.response["Error"]["Code"] not in MISSING_CODES:
            raise
        return None
    return found


def as_folder(prefix: str) -> str:
    return prefix.strip("/") + "/"
