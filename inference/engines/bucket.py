"""The engines' way to S3: one client for all, made at the first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.requests import S3Folder, S3Object
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.media.store import Upload


class Buckets:
    """S3 within the deployment's settings. boto3 comes in only where S3 is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None  # a client takes a while to make

    @property
    def client(self) -> Any:
        from inference.media.s3 import s3_client

        self._client = self._client or s3_client(self._settings.s3_endpoint_url)
        return self._client

    @contextmanager
    def fetched(self, source: S3Object | bytes) -> Iterator[Path | bytes]:
        """The source on this machine, for as long as it is needed. Raises: as `fetch_s3`."""
        if isinstance(source, bytes):
            yield source
            return
        from inference.media.fetch import fetched

        max_bytes, allowed = self._settings.max_bytes, self._settings.allowed_buckets
        with fetched(source.bucket, source.key, self.client, max_bytes=max_bytes, allowed=allowed) as path:
            yield path

    @contextmanager
    def upload(self, folder: S3Folder, name: str, content_type: str) -> Iterator[Upload]:
        """Raises: as `open_upload`."""
        from inference.media.store import open_upload

        allowed = self._settings.allowed_buckets
        key = folder.prefix + name
        with open_upload(folder.bucket, key, self.client, content_type=content_type, allowed=allowed) as upload:
            yield upload

    def link_to(self, upload: Upload, *, is_presigned: bool) -> str:
        """Raises: as `links.link_to`."""
        from inference.media.links import link_to

        return link_to(upload.bucket, upload.key, self.client, is_presigned=is_presigned)
