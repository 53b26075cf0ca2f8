"""Media that are in S3 or at URLs, for the engines: clients are created on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inference.requests import MediaSource, S3Folder, S3Object, UrlObject
from inference.settings import Settings
from inference.stage_timer import do_nothing

if TYPE_CHECKING:
    from inference.media.outbound import OutboundClient
    from inference.media.s3.upload import MultipartUpload


class RemoteFiles:
    """S3 objects and URLs within the deployment's limits. boto3 is imported only if a request uses S3."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None  # slow to create

    @cached_property
    def _urls(self) -> OutboundClient:
        from inference.media.outbound import OutboundClient, UrlRules

        return OutboundClient(UrlRules(self._settings.allowed_url_hosts))

    @property
    def client(self) -> Any:
        from inference.media.s3.client import s3_client

        self._client = self._client or s3_client(self._settings.s3_endpoint_url)
        return self._client

    @contextmanager
    def fetched(self, source: MediaSource, check: Callable[[], None] = do_nothing) -> Iterator[Path | bytes]:
        """Yield the source as a local file that is deleted afterwards; yield bytes as they are.

        check: called often during a download; it raises to end it.
        Raises: the errors of `temporary_download`, and of `OutboundClient.fetch`.
        """
        if isinstance(source, bytes):
            yield source
        elif isinstance(source, UrlObject):
            with self._download_url(source, check) as path:
                yield path
        else:
            with self._download_object(source) as path:
                yield path

    @contextmanager
    def _download_object(self, source: S3Object) -> Iterator[Path]:
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
    def _download_url(self, source: UrlObject, check: Callable[[], None]) -> Iterator[Path]:
        from inference.media.outbound import shown
        from inference.media.s3.download import disk_errors, local_name, private_folder

        with private_folder() as folder:
            path = folder / local_name(urlsplit(source.url).path)
            with disk_errors(shown(source.url)):
                self._urls.fetch(source.url, path, self._settings.max_bytes, lambda _n_bytes: check())
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
