"""Weight files from S3, cached by object version (ETag)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from inference.errors import InvalidRequest, MediaNotFound, WeightsNotFound
from inference.media.s3 import client as s3
from inference.media.s3.client import BUCKET_NAME, SCHEME, s3_client
from inference.media.s3.download import ObjectVersion, download
from inference.weights.cache import atomic_public_file
from inference.weights.sources import WeightSources

MAX_BYTES = 2 << 30  # far above any model here, so that a wrong key does not fill the disk


def fetch_s3(uri: str, sources: WeightSources) -> Path:
    """Return the object at s3://bucket/key; download it if this version is not in the cache.

    Raises: InvalidRequest, WeightsNotFound, AccessDenied, StorageError.
    """
    bucket, key = split_uri(uri)
    with translate_errors(uri):
        client = s3_client(sources.s3_endpoint_url)
        head = client.head_object(Bucket=bucket, Key=key)
    if head["ContentLength"] > MAX_BYTES:
        raise WeightsNotFound(f"{uri}: {head['ContentLength']} bytes; expected weights, at most {MAX_BYTES}")
    version = re.sub(r"[^0-9A-Za-z-]", "", head["ETag"])
    path = sources.cache / "s3" / bucket / version / PurePosixPath(key).name
    if not path.is_file():
        # Pinned to this version: the object may be replaced between the two calls.
        object_version = ObjectVersion(bucket, key, head["ETag"], head["ContentLength"])
        with translate_errors(uri), atomic_public_file(path) as part, part.open("wb") as out:
            download(client, object_version, out)
    return path


def split_uri(uri: str) -> tuple[str, str]:
    """Split 's3://bucket/a/b.pt' into ('bucket', 'a/b.pt')."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not BUCKET_NAME.fullmatch(bucket) or PurePosixPath(key).name in ("", ".", ".."):
        raise InvalidRequest(f"weights {uri!r}: expected s3://bucket/key")
    return bucket, key


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Raise S3's errors as ours. Raises: WeightsNotFound, AccessDenied, StorageError."""
    try:
        with s3.translate_s3_errors(*split_uri(uri)):
            yield
    except MediaNotFound as err:
        raise WeightsNotFound(str(err)) from err
