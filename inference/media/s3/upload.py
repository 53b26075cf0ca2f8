"""Uploads of results to S3."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inference.errors import VisemeError
from inference.media.s3.client import (
    ALL_BUCKETS,
    Client,
    check_allowed,
    check_names,
    translate_s3_errors,
    with_retries,
)

__all__ = ["MultipartUpload", "open_upload"]

PART_BYTES = 8 << 20  # S3 requires at least 5 MiB, except for the last part
MAX_PARTS = 10_000  # S3's own limit
logger = logging.getLogger("viseme.store")


@contextmanager
def open_upload(
    bucket: str, key: str, client: Client, *, content_type: str, allowed: tuple[str, ...] = ALL_BUCKETS
) -> Iterator[MultipartUpload]:
    """Start an upload whose contents come later, so that missing permissions are reported at once.

    The object appears complete after `finish`, or not at all. client: made by `s3_client`. allowed: see
    `check_allowed`; the same list applies to reading and writing.
    Raises: InvalidRequest, AccessDenied, MediaNotFound for a missing bucket, StorageError.
    """
    check_names(bucket, key)
    check_allowed(bucket, key, allowed)
    with translate_s3_errors(bucket, key):
        created = with_retries(lambda: client.create_multipart_upload(Bucket=bucket, Key=key, ContentType=content_type))
    upload = MultipartUpload(bucket, key, created["UploadId"], client)
    try:
        yield upload
    finally:
        if not upload.is_finished:
            upload.abort()


@dataclass
class MultipartUpload:
    """An object being uploaded. Made by `open_upload`."""

    bucket: str
    key: str
    id: str
    client: Client
    is_finished: bool = False
    _parts: list[dict[str, Any]] = field(default_factory=list)

    def upload_file(self, path: Path, on_part: Callable[[], None] | None = None) -> None:
        """Upload a file part by part; a part that breaks off is sent again.

        on_part: called before each part; an exception from it ends the upload.
        Raises: AccessDenied, StorageError; OSError if the file cannot be read.
        """
        part_bytes = max(PART_BYTES, -(-path.stat().st_size // MAX_PARTS))
        with path.open("rb") as file:
            while (part := file.read(part_bytes)) or not self._parts:
                if on_part is not None:
                    on_part()
                with translate_s3_errors(self.bucket, self.key):
                    self._parts.append(with_retries(partial(self._send_part, len(self._parts) + 1, part)))

    def finish(self) -> None:
        """Complete the upload: the object appears. Raises: AccessDenied, StorageError."""
        with translate_s3_errors(self.bucket, self.key):
            with_retries(partial(self._call, "complete_multipart_upload", MultipartUpload={"Parts": self._parts}))
        self.is_finished = True

    def abort(self) -> None:
        """Abort the upload. A failure to do so is only logged: the work has already failed for another reason."""
        try:
            with translate_s3_errors(self.bucket, self.key):
                with_retries(partial(self._call, "abort_multipart_upload"))
        except VisemeError as err:
            logger.warning("an upload could not be aborted; its parts stay in the bucket", extra={"reason": str(err)})

    def _send_part(self, number: int, part: bytes) -> dict[str, Any]:
        response = self._call("upload_part", PartNumber=number, Body=part)
        return {"PartNumber": number, "ETag": response["ETag"]}

    def _call(self, name: str, **arguments: Any) -> Any:
        return getattr(self.client, name)(Bucket=self.bucket, Key=self.key, UploadId=self.id, **arguments)
