"""Access to S3, shared by downloads and uploads of media and weights: client, allow-list, retries and errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, StorageError, VisemeError

T = TypeVar("T")
Client = Any  # boto3 creates its classes at run time

SCHEME = "s3://"
ALL_BUCKETS = ("*",)
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
MAX_KEY_BYTES = 1024  # S3's own limit
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0  # between two packets
MAX_ATTEMPTS = 4
MAX_RETRY_S = 30.0  # no further attempt after this long
FIRST_WAIT_S = 0.2  # doubled with each attempt

DENIED_STATUSES = {401, 403}
DENIED_CODES = {"ExpiredToken", "InvalidToken"}  # with status 400
REDIRECT_STATUSES = {301, 307}
CHANGED_STATUSES = {412, 416}
TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"}
REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}


def s3_client(endpoint_url: str | None = None, region: str | None = None, addressing: str | None = None) -> Client:
    """Create an S3 client with limited timeouts. It takes 0.1 s: keep it. Threads may share it.

    endpoint_url: of an S3-compatible server; None for AWS. addressing: where URLs contain the bucket's name, "virtual"
    or "path"; by default whichever works. boto3 finds the credentials by its own rules.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 2},  # `with_retries` adds its own
        signature_version="s3v4",  # also of presigned URLs
        s3={
            # Other servers than AWS have no host name per bucket.
            "addressing_style": addressing or ("path" if endpoint_url else "auto"),
            "us_east_1_regional_endpoint": "regional",
        },
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, region_name=region, config=config)


def s3_url(bucket: str, key: str) -> str:
    """Return s3://bucket/key."""
    return f"{SCHEME}{bucket}/{key}"


def check_names(bucket: str, key: str) -> None:
    """Raise InvalidRequest for names that S3 does not allow or HTTP libraries rewrite."""
    if not BUCKET_NAME.fullmatch(bucket):
        raise InvalidRequest(f"bucket {bucket[:80]!r}: expected 3 to 63 of a-z, 0-9, dot and hyphen")
    if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise InvalidRequest(f"key {key[:80]!r}: expected 1 to {MAX_KEY_BYTES} bytes")
    # "allowed/../secret" would pass the allow-list, and then be sent as another key.
    if {".", ".."} & set(key.split("/")) or any(ord(character) < ord(" ") for character in key):
        raise InvalidRequest(f"key {key[:80]!r}: expected no control characters and no segments '.' or '..'")


def check_allowed(bucket: str, key: str, allowed: tuple[str, ...]) -> None:
    """Raise AccessDenied unless this deployment may access the object, whatever its role allows.

    allowed: "*", "bucket", or "bucket/prefix"; a prefix is a folder, so "b/up" does not include "b/upper".
    """
    for entry in allowed:
        allowed_bucket, _, prefix = entry.partition("/")
        folder = prefix.rstrip("/") + "/" if prefix else ""
        if entry == "*" or (allowed_bucket == bucket and key.startswith(folder)):
            return
    raise AccessDenied(f"{s3_url(bucket, key)}: not in a bucket or folder that is allowed here")


def with_retries(call: Callable[[], T]) -> T:
    """Return the call's result; repeat it with growing pauses while its errors are transient."""
    # Imported at the first request: it takes asyncio with it.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential

    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(MAX_ATTEMPTS) | stop_after_delay(MAX_RETRY_S),
        wait=wait_exponential(multiplier=FIRST_WAIT_S),
        reraise=True,
    )
    return retrying(call)


def is_transient(err: BaseException) -> bool:
    """Return whether another attempt may succeed: after a connection error, a busy server, a truncated response."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    if isinstance(err, ClientError):
        return status_of(err) in TRANSIENT_STATUSES or code_of(err) in TRANSIENT_CODES
    return isinstance(err, HTTPClientError | IncompleteReadError)


@contextmanager
def translate_s3_errors(bucket: str, key: str) -> Iterator[None]:
    """Translate boto3's errors. Raises: MediaNotFound, AccessDenied, InvalidRequest, StorageError."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    url = s3_url(bucket, key)
    try:
        yield
    except ClientError as err:
        raise explain_client_error(err, bucket, key) from err
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as err:
        raise AccessDenied(f"{url}: there are no AWS credentials here") from err
    except ParamValidationError as err:
        raise InvalidRequest(f"{url}: invalid bucket or key") from err
    except BotoCoreError as err:  # its text contains our addresses: report only its class
        raise StorageError(f"{url}: S3 cannot be reached, or broke off ({type(err).__name__})") from err


def explain_client_error(err: Any, bucket: str, key: str) -> VisemeError:
    """Return the error for botocore's ClientError `err`."""
    url, code, status = s3_url(bucket, key), code_of(err), status_of(err)
    if code in REGION_CODES or status in REDIRECT_STATUSES:
        return StorageError(f"{url}: the bucket is in region {region_of(err)}, which this server does not use")
    if code == "NoSuchBucket":
        return MediaNotFound(f"{url}: there is no bucket {bucket!r} to hold {key!r}")
    if status == 404:
        return MediaNotFound(f"{url}: there is no key {key!r} in bucket {bucket!r}, or no such bucket")
    if status in DENIED_STATUSES or code in DENIED_CODES:
        return AccessDenied(f"{url}: access denied ({code}); it may also be missing if the role cannot list the bucket")
    if status in CHANGED_STATUSES:
        return StorageError(f"{url}: was replaced while it was being read")
    return StorageError(f"{url}: S3 failed ({code})")


def code_of(err: Any) -> str:
    return str(err.response.get("Error", {}).get("Code", "unknown"))


def status_of(err: Any) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def region_of(err: Any) -> str:
    headers = err.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region") or err.response.get("Error", {}).get("Region") or "(unknown)")
