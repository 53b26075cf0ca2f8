"""Downloads of S3 objects: in ranges that are retried, and of one version only."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from inference.atomic_write import atomic_file
from inference.errors import MediaNotFound, MediaTooLarge, StorageError
from inference.locked_folders import locked_folder, remove_orphans
from inference.media.s3.client import (
    ALL_BUCKETS,
    Client,
    check_allowed,
    check_names,
    s3_client,
    s3_url,
    translate_s3_errors,
    with_retries,
)

__all__ = ["check_allowed", "download_object", "s3_client", "temporary_download"]

PART_BYTES = 8 << 20  # one ranged read: at most this much is lost to a failure
CHUNK_BYTES = 1 << 20
FOLDER_PREFIX = "viseme-fetched-"
MAX_NAME_LENGTH = 100  # characters
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@contextmanager
def temporary_download(
    bucket: str,
    key: str,
    client: Client,
    *,
    max_bytes: int,
    allowed: tuple[str, ...] = ALL_BUCKETS,
    version_id: str | None = None,
    etag: str | None = None,
) -> Iterator[Path]:
    """Download an object to a private folder, and delete it afterwards. Parameters, raises: as `download_object`."""
    with private_folder() as folder:
        yield download_object(
            bucket, key, folder, client, max_bytes=max_bytes, allowed=allowed, version_id=version_id, etag=etag
        )


def download_object(
    bucket: str,
    key: str,
    folder: Path,
    client: Client,
    *,
    max_bytes: int,
    allowed: tuple[str, ...] = ALL_BUCKETS,
    version_id: str | None = None,
    etag: str | None = None,
) -> Path:
    """Download one version of an object into a folder. Returns: a path named after the key.

    client: made by `s3_client`. max_bytes: checked before the download starts. allowed: see `check_allowed`.
    version_id: None for the current version. etag: that the version must have, without quotes; None if any.
    Raises: InvalidRequest, AccessDenied, MediaNotFound (also if the ETag is another), MediaTooLarge; StorageError if
    S3 cannot be reached, is in another region, breaks the transfer off repeatedly, or if the object is replaced
    meanwhile.
    """
    check_names(bucket, key)
    check_allowed(bucket, key, allowed)
    with translate_s3_errors(bucket, key):
        head = with_retries(lambda: client.head_object(Bucket=bucket, Key=key, **version_of(version_id)))
    version = ObjectVersion(bucket, key, head["ETag"], head["ContentLength"], version_id)
    if etag is not None and version.etag.strip('"') != etag.strip('"'):
        raise MediaNotFound(f"{version.url}: was replaced; found ETag {version.etag}, expected {etag}")
    if version.n_bytes > max_bytes:
        raise MediaTooLarge(f"{version.url}: {version.n_bytes} bytes; at most {max_bytes} expected")
    path = folder / local_name(key)
    with disk_errors(version.url), atomic_file(path) as partial, partial.open("wb") as out:
        download(client, version, out)
    return path


@dataclass(frozen=True)
class ObjectVersion:
    """One version of an object, whose size is known."""

    bucket: str
    key: str
    etag: str
    n_bytes: int
    version_id: str | None = None

    @property
    def url(self) -> str:
        return s3_url(self.bucket, self.key)


def download(client: Client, version: ObjectVersion, out: IO[bytes]) -> None:
    """Write the object to an empty file part by part; a part that breaks off is resumed where it broke.

    Raises: MediaNotFound, AccessDenied, StorageError; OSError if the file cannot be written.
    """
    while (start := out.tell()) < version.n_bytes:
        end = min(start + PART_BYTES, version.n_bytes)
        with translate_s3_errors(version.bucket, version.key):
            with_retries(partial(read_part, client, version, end, out))
        if out.tell() != end:
            raise StorageError(f"{version.url}: truncated; received {out.tell()} of {version.n_bytes} bytes")


def read_part(client: Client, version: ObjectVersion, end: int, out: IO[bytes]) -> None:
    """Append the missing bytes up to `end`, of this version only."""
    start = out.tell()
    if start == end:
        return  # complete: the connection broke after the last byte
    response = client.get_object(
        Bucket=version.bucket,
        Key=version.key,
        IfMatch=version.etag,
        Range=f"bytes={start}-{end - 1}",
        **version_of(version.version_id),
    )
    with contextlib.closing(response["Body"]) as body:
        if response["ContentLength"] != end - start:
            raise StorageError(
                f"{version.url}: received {response['ContentLength']} bytes instead of the {end - start} requested; "
                "the storage does not support ranges"
            )
        for chunk in body.iter_chunks(CHUNK_BYTES):
            out.write(chunk)
            out.flush()


def version_of(version_id: str | None) -> dict[str, str]:
    """Return the parameter of S3's calls for a version."""
    return {"VersionId": version_id} if version_id else {}


@contextmanager
def disk_errors(url: str) -> Iterator[None]:
    """Convert the OSErrors of disk access. Raises: StorageError.

    Some of boto3's errors are OSErrors, too: calls of S3 inside must be in `translate_s3_errors`, as in `download`.
    """
    try:
        yield
    except OSError as err:
        raise StorageError(f"{url}: cannot be stored on this machine ({err.strerror})") from err


def local_name(key: str) -> str:
    """Return a valid file name like the end of the key, for messages: 'a/my clip.mp4' -> 'my_clip.mp4'."""
    name = UNSAFE.sub("_", key.rstrip("/").rpartition("/")[2])[-MAX_NAME_LENGTH:].lstrip(".")
    return name or "object"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a private folder, and delete it: if this process is killed, the next one's first download does."""
    remove_orphans()
    with locked_folder(FOLDER_PREFIX) as folder:
        yield folder
