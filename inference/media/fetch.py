"""Media from S3, onto this machine for as long as they are read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from inference.errors import MediaTooLarge, StorageError
from inference.media.s3 import (
    EVERYWHERE,
    Client,
    check_allowed,
    check_names,
    named_errors,
    s3_client,
    s3_url,
    with_retries,
)

__all__ = ["check_allowed", "fetch_s3", "fetched", "s3_client"]

PART_BYTES = 8 << 20  # of one ranged read: what a fault costs at most
CHUNK_BYTES = 1 << 20
FOLDER_PREFIX = "viseme-fetched-"
MAX_NAME = 100  # characters
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@contextmanager
def fetched(
    bucket: str, key: str, client: Client, *, max_bytes: int, allowed: tuple[str, ...] = EVERYWHERE
) -> Iterator[Path]:
    """The object as a file in a private folder, which is gone afterwards.

    Raises: as `fetch_s3`.
    """
    with private_folder() as folder:
        yield fetch_s3(bucket, key, folder, client, max_bytes=max_bytes, allowed=allowed)


def fetch_s3(
    bucket: str, key: str, folder: Path, client: Client, *, max_bytes: int, allowed: tuple[str, ...] = EVERYWHERE
) -> Path:
    """Download one version of an object into a folder. Returns: a path whose name is like the key's.

    client: by `s3_client`. max_bytes: checked before anything is downloaded. allowed: see `check_allowed`.
    Raises: InvalidRequest, AccessDenied, MediaNotFound, MediaTooLarge; StorageError where S3 is out of
    reach, in another region, cuts the transfer off again and again, or the object is replaced meanwhile.
    """
    check_names(bucket, key)
    check_allowed(bucket, key, allowed)
    url = s3_url(bucket, key)
    with named_errors(bucket, key):
        head = with_retries(lambda: client.head_object(Bucket=bucket, Key=key))
        version = Version(bucket, key, head["ETag"], head["ContentLength"])
        if version.n_bytes > max_bytes:
            raise MediaTooLarge(f"{url}: {version.n_bytes} bytes; at most {max_bytes} expected")
        path = folder / local_name(key)
        with part_file(path, url) as out:
            download(client, version, out)
    return path


@dataclass(frozen=True)
class Version:
    """An object as it was when its size was checked."""

    bucket: str
    key: str
    etag: str
    n_bytes: int

    @property
    def url(self) -> str:
        return s3_url(self.bucket, self.key)


def download(client: Client, version: Version, out: IO[bytes]) -> None:
    """Part by part; a part that breaks off is taken up where it broke."""
    while (start := out.tell()) < version.n_bytes:
        end = min(start + PART_BYTES, version.n_bytes)
        with_retries(partial(read_part, client, version, end, out))
        if out.tell() != end:
            raise StorageError(f"{version.url}: truncated; {out.tell()} of {version.n_bytes} bytes came")


def read_part(client: Client, version: Version, end: int, out: IO[bytes]) -> None:
    """Append what is missing up to `end`, of this version alone."""
    start = out.tell()
    if start == end:
        return  # all of it had come before the connection broke
    answer = client.get_object(
        Bucket=version.bucket, Key=version.key, IfMatch=version.etag, Range=f"bytes={start}-{end - 1}"
    )
    with contextlib.closing(answer["Body"]) as body:
        if answer["ContentLength"] != end - start:
            raise StorageError(
                f"{version.url}: {answer['ContentLength']} bytes came where "
                f"{end - start} were asked for; the storage does not serve ranges"
            )
        for chunk in body.iter_chunks(CHUNK_BYTES):
            with disk_errors(version.url):
                out.write(chunk)
                out.flush()


@contextmanager
def part_file(path: Path, url: str) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is whole, and is gone otherwise."""
    part = path.with_name(path.name + ".part")
    try:
        with disk_errors(url):
            out = part.open("wb")
        with out:
            yield out
        with disk_errors(url):
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def disk_errors(url: str) -> Iterator[None]:
    """Around what touches the disk alone: some of boto3's errors are OSErrors, too. Raises: StorageError."""
    try:
        yield
    except OSError as err:
        raise StorageError(f"{url}: cannot be kept on this machine ({err.strerror})") from err


def local_name(key: str) -> str:
    """A name for messages, like the end of the key, that no file system minds: 'a/mein Film.mp4' -> 'mein_Film.mp4'."""
    name = UNSAFE.sub("_", key.rstrip("/").rpartition("/")[2])[-MAX_NAME:].lstrip(".")
    return name or "object"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of our own, gone afterwards: if this process is killed, with the next one's first fetch."""
    remove_orphans()
    folder, lock = make_locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def make_locked_folder() -> tuple[Path, int]:
    """The lock is the kernel's, so it ends with this process, however that ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        with contextlib.suppress(FileNotFoundError):  # taken for an orphan before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def remove_orphans() -> None:
    """Folders that no living process holds."""
    for folder in Path(tempfile.gettempdir()).glob(FOLDER_PREFIX + "*"):
        with contextlib.suppress(OSError):  # someone else's, in use, or gone meanwhile
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
