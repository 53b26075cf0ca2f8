"""Results to S3."""

from __future__ import annotations

import io
from pathlib import Path

from inference.media.s3 import EVERYWHERE, Client, check_allowed, check_names, named_errors, s3_url, with_retries

__all__ = ["put_s3"]


def put_s3(
    source: Path | bytes,
    bucket: str,
    key: str,
    client: Client,
    *,
    content_type: str,
    allowed: tuple[str, ...] = EVERYWHERE,
) -> str:
    """Write a file or bytes to an object, in parts where they are large. Returns: its s3:// URL.

    The object is there whole, or not at all. client: by `s3_client`.
    Raises: InvalidRequest, AccessDenied, MediaNotFound for a missing bucket, StorageError; OSError where
    the file cannot be read.
    """
    check_names(bucket, key)
    check_allowed(bucket, key, allowed)

    def upload() -> None:
        # Opened for each attempt: boto3 may close what it has sent.
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as body:
            client.upload_fileobj(body, bucket, key, ExtraArgs={"ContentType": content_type})

    with named_errors(bucket, key):
        with_retries(upload)
    return s3_url(bucket, key)
