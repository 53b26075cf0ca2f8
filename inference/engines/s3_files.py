"""S3 access of the engines: one client, created on first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.requests import S3Folder, S3Object
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.media.s3.upload import MultipartUpload


class S3Files:
    """S3 objects within the deployment's limits. boto3 is imported only if a request uses S3."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None  # slow to create

    @property
    def client(self) -> Any:
        from inference.media.s3.client import s3_client

        self._client = self._client or s3_client(self._settings.s3_endpoint_url)
        return self._client

    @contextmanager
    def fetched(self, source: S3Object | bytes) -> Iterator[Path | bytes]:
        """Yield the source as a local file that is deleted afterwards; yield bytes as they are.

        Raises: the errors of `temporary_download`.
        """
        if isinstance(source, bytes):
            yield source
            return
        from inference.media.s3.download import temporary_download

        max_bytes, allowed = self._settings.max_bytes, self._settings.allowed_buckets
        with temporary_download(
            source.bucket,
            source.key,
            self.client,
            max_bytes=max_bytes,
            allowed=allowed,
            version_id=source.version_id,
            etag=source.etag,
        ) as path:
            yield path

    @contextmanager
    def upload(self, folder: S3Folder, name: str, content_type: str) -> Iterator[MultipartUpload]:
        """Start an upload into a folder. Raises: the errors of `open_upload`."""
        from inference.media.s3.upload import open_upload

        allowed = self._settings.allowed_buckets
        key = folder.prefix + name
        with open_upload(folder.bucket, key, self.client, content_type=content_type, allowed=allowed) as upload:
            yield upload

    def link_to(self, upload: MultipartUpload, *, is_presigned: bool) -> str:
        """Return the URL of an uploaded object. Raises: the errors of `link_to`."""
        from inference.media.s3.urls import object_url

        return object_url(upload.bucket, upload.key, self.client, is_presigned=is_presigned)
