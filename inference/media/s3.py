"""What fetching and storing share, weights included: a client, what may be named, and errors by their kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, StorageError, VisemeError

T = TypeVar("T")
Client = Any  # boto3 makes its classes while it runs

SCHEME = "s3://"
EVERYWHERE = ("*",)
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
MAX_KEY_BYTES = 1024  # S3's own bound
CONNECT_S = 5.0
READ_S = 30.0  # between two packets
N_ATTEMPTS = 4
MAX_RETRY_S = 30.0  # no further attempt after this long
FIRST_WAIT_S = 0.2  # doubled with each attempt

DENIED = {401, 403}
DENIED_CODES = {"ExpiredToken", "InvalidToken"}  # with status 400
MOVED = {301, 307}
CHANGED = {412, 416}
PASSING_STATUSES = {408, 429, 500, 502, 503, 504}
PASSING_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"}
REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}


def s3_client(endpoint_url: str | None = None, region: str | None = None, addressing: str | None = None) -> Client:
    """A client for S3, with bounded waits. Takes 0.1 s to make: keep it. May be shared by threads.

    endpoint_url: of a stand-in; None for AWS. addressing: where the bucket's name goes in addresses, "virtual" or
    "path"; by default where it works. Credentials are found by boto3's own rules.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"mode": "standard", "total_max_attempts": 2},  # `with_retries` goes on from there
        signature_version="s3v4",  # of addresses that are signed, too
        s3={
            "addressing_style": addressing or ("path" if endpoint_url else "auto"),  # a stand-in has no name per bucket
            "us_east_1_regional_endpoint": "regional",
        },
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, region_name=region, config=config)


def s3_url(bucket: str, key: str) -> str:
    """As s3://bucket/key."""
    return f"{SCHEME}{bucket}/{key}"


def split_url(url: str) -> tuple[str, str]:
    """'s3://bucket/a/b.mp4' -> ('bucket', 'a/b.mp4'). Raises: InvalidRequest."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not url.startswith(SCHEME):
        raise InvalidRequest(f"{url[:200]!r}: expected s3://bucket/key")
    check_names(bucket, key)
    return bucket, key


def check_names(bucket: str, key: str) -> None:
    """Raises: InvalidRequest for what S3 does not allow, or HTTP libraries rewrite."""
    if not BUCKET_NAME.fullmatch(bucket):
        raise InvalidRequest(f"bucket {bucket[:80]!r}: expected 3 to 63 of a-z, 0-9, dot and hyphen")
    if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise InvalidRequest(f"key {key[:80]!r}: expected 1 to {MAX_KEY_BYTES} bytes")
    # "allowed/../secret" would pass the allow-list here and be another key by the time it is sent.
    if {".", ".."} & set(key.split("/")) or any(ord(sign) < ord(" ") for sign in key):
        raise InvalidRequest(f"key {key[:80]!r}: expected no control characters and no parts '.' or '..'")


def check_allowed(bucket: str, key: str, allowed: tuple[str, ...]) -> None:
    """Whether this deployment serves the object at all, whatever the role may do.

    allowed: "*", "bucket", or "bucket/prefix"; a prefix names a folder, so "b/up" does not hold "b/upper".
    Raises: AccessDenied.
    """
    for entry in allowed:
        allowed_bucket, _, prefix = entry.partition("/")
        folder = prefix.rstrip("/") + "/" if prefix else ""
        if entry == "*" or (allowed_bucket == bucket and key.startswith(folder)):
            return
    raise AccessDenied(f"{s3_url(bucket, key)}: not in a bucket or folder that is allowed here")


def with_retries(call: Callable[[], T]) -> T:
    """What the call returns, tried again with growing pauses while its faults may pass."""
    retrying = Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_attempt(N_ATTEMPTS) | stop_after_delay(MAX_RETRY_S),
        wait=wait_exponential(multiplier=FIRST_WAIT_S),
        reraise=True,
    )
    return retrying(call)


def is_passing(err: BaseException) -> bool:
    """Whether another attempt may do better: the connection, a busy server, an answer cut short."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    if isinstance(err, ClientError):
        return status_of(err) in PASSING_STATUSES or code_of(err) in PASSING_CODES
    return isinstance(err, HTTPClientError | IncompleteReadError)


@contextmanager
def named_errors(bucket: str, key: str) -> Iterator[None]:
    """Errors of boto3 become ours.

    Raises: MediaNotFound, AccessDenied, InvalidRequest, StorageError.
    """
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
        raise explain_refusal(err, bucket, key) from err
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as err:
        raise AccessDenied(f"{url}: there are no AWS credentials here") from err
    except ParamValidationError as err:
        raise InvalidRequest(f"{url}: no valid bucket and key") from err
    except BotoCoreError as err:  # its text holds addresses of ours: only its kind is told
        raise StorageError(f"{url}: S3 is out of reach, or broke off ({type(err).__name__})") from err


def explain_refusal(err: Any, bucket: str, key: str) -> VisemeError:
    """err: botocore's ClientError."""
    url, code, status = s3_url(bucket, key), code_of(err), status_of(err)
    if code in REGION_CODES or status in MOVED:
        return StorageError(f"{url}: the bucket is in region {region_of(err)}, where this server does not ask")
    if code == "NoSuchBucket":
        return MediaNotFound(f"{url}: there is no bucket {bucket!r} to hold {key!r}")
    if status == 404:
        return MediaNotFound(f"{url}: there is no key {key!r} in bucket {bucket!r}, or no such bucket")
    if status in DENIED or code in DENIED_CODES:
        return AccessDenied(f"{url}: access denied ({code}); it may also be missing, where the role cannot list")
    if status in CHANGED:
        return StorageError(f"{url}: was replaced while it was read")
    return StorageError(f"{url}: S3 failed ({code})")


def code_of(err: Any) -> str:
    return str(err.response.get("Error", {}).get("Code", "unknown"))


def status_of(err: Any) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def region_of(err: Any) -> str:
    headers = err.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region") or err.response.get("Error", {}).get("Region") or "(not told)")
