"""Weight files from S3, kept in the cache by the version that S3 names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from inference.errors import AccessDenied, InvalidRequest, StorageError, WeightsNotFound
from inference.media.s3 import BUCKET_NAME, SCHEME, s3_client
from inference.weights.sources import WeightSources
from inference.weights.store import whole_file

CHUNK_BYTES = 1 << 20
MAX_BYTES = 2 << 30  # far above any model here; a wrong key must not fill the disk
MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
DENIED = {"401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


def fetch_s3(uri: str, sources: WeightSources) -> Path:
    """The object at s3://bucket/key, downloaded unless this very version was before.

    Raises: InvalidRequest, WeightsNotFound, AccessDenied, StorageError.
    """
    bucket, key = split_uri(uri)
    with named_errors(uri):
        client = s3_client(sources.s3_endpoint_url)
        head = client.head_object(Bucket=bucket, Key=key)
    if head["ContentLength"] > MAX_BYTES:
        raise WeightsNotFound(f"{uri}: {head['ContentLength']} bytes; expected weights, at most {MAX_BYTES}")
    version = re.sub(r"[^0-9A-Za-z-]", "", head["ETag"])
    path = sources.cache / "s3" / bucket / version / PurePosixPath(key).name
    if not path.is_file():
        download(client, uri, head["ETag"], path)
    return path


@retry(
    retry=retry_if_exception_type(StorageError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.2),
    reraise=True,
)
def download(client: Any, uri: str, etag: str, path: Path) -> None:
    bucket, key = split_uri(uri)
    with named_errors(uri), whole_file(path) as part, part.open("wb") as out:
        # Of this version alone: the object may be replaced between the two calls.
        body = client.get_object(Bucket=bucket, Key=key, IfMatch=etag)["Body"]
        for chunk in body.iter_chunks(CHUNK_BYTES):
            out.write(chunk)


def split_uri(uri: str) -> tuple[str, str]:
    """'s3://bucket/a/b.pt' -> ('bucket', 'a/b.pt')."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not BUCKET_NAME.fullmatch(bucket) or PurePosixPath(key).name in ("", ".", ".."):
        raise InvalidRequest(f"weights {uri!r}: expected s3://bucket/key")
    return bucket, key


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as err:
        code = str(err.response.get("Error", {}).get("Code", ""))
        if code in MISSING:
            raise WeightsNotFound(f"{uri}: no such bucket or key") from err
        if code in DENIED:
            raise AccessDenied(f"{uri}: the role may not read it ({code})") from err
        raise StorageError(f"{uri}: S3 failed ({code or err})") from err
    except NoCredentialsError as err:
        raise AccessDenied(f"{uri}: there are no AWS credentials here") from err
    except BotoCoreError as err:
        raise StorageError(f"{uri}: S3 cannot be reached, or broke off ({err})") from err
