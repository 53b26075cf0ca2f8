"""Results to S3."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inference.errors import VisemeError
from inference.media.s3 import (
    EVERYWHERE,
    Client,
    check_allowed,
    check_names,
    named_errors,
    s3_url,
    with_retries,
)

__all__ = ["Upload", "open_upload", "put_s3"]

PART_BYTES = 8 << 20  # S3 takes none under 5 MiB but the last
MOST_PARTS = 10_000  # S3's own bound
LOG = logging.getLogger("viseme.store")


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


@contextmanager
def open_upload(
    bucket: str, key: str, client: Client, *, content_type: str, allowed: tuple[str, ...] = EVERYWHERE
) -> Iterator[Upload]:
    """An object that is to be written once there is something to write: S3 says now whether it may be.

    It is there whole after `finish`, and not at all before or otherwise. client: by `s3_client`.
    allowed: the list for reading holds for writing, too.
    Raises: InvalidRequest, AccessDenied, MediaNotFound for a missing bucket, StorageError.
    """
    check_names(bucket, key)
    check_allowed(bucket, key, allowed)
    with named_errors(bucket, key):
        begun = with_retries(lambda: client.create_multipart_upload(Bucket=bucket, Key=key, ContentType=content_type))
    upload = Upload(bucket, key, begun["UploadId"], client)
    try:
        yield upload
    finally:
        if not upload.is_finished:
            upload.abort()


@dataclass
class Upload:
    """An object that is being written. Made by `open_upload`."""

    bucket: str
    key: str
    id: str
    client: Client
    is_finished: bool = False
    _parts: list[dict[str, Any]] = field(default_factory=list)

    def send(self, path: Path, on_part: Callable[[], None] | None = None) -> None:
        """Hand over a file, part by part; a part that breaks off is sent again.

        on_part: called before each; what it raises ends the work.
        Raises: AccessDenied, StorageError; OSError where the file cannot be read.
        """
        part_bytes = max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS))
        with path.open("rb") as file:
            while (part := file.read(part_bytes)) or not self._parts:
                if on_part is not None:
                    on_part()
                with named_errors(self.bucket, self.key):
                    self._parts.append(with_retries(partial(self._send_part, len(self._parts) + 1, part)))

    def finish(self) -> None:
        """Let the object appear. Raises: AccessDenied, StorageError."""
        with named_errors(self.bucket, self.key):
            with_retries(partial(self._call, "complete_multipart_upload", MultipartUpload={"Parts": self._parts}))
        self.is_finished = True

    def abort(self) -> None:
        """Nothing is to appear. What S3 does not let go of is only logged: the work has failed for another reason."""
        try:
            with named_errors(self.bucket, self.key):
                with_retries(partial(self._call, "abort_multipart_upload"))
        except VisemeError as err:
            LOG.warning("parts of an object that will never be whole stay in its bucket", extra={"reason": str(err)})

    def _send_part(self, number: int, part: bytes) -> dict[str, Any]:
        answer = self._call("upload_part", PartNumber=number, Body=part)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _call(self, name: str, **about: Any) -> Any:
        return getattr(self.client, name)(Bucket=self.bucket, Key=self.key, UploadId=self.id, **about)
