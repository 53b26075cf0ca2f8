"""The origin from which browsers load files of jobs, if these are in S3: the page's policy must allow it."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from inference.errors import VisemeError
from inference.settings import Settings

logger = logging.getLogger("viseme.jobs")
S3_SCHEME = "s3://"
WAIT_S = 2.0  # that the page waits for S3 to report the bucket's region


class DownloadOrigin:
    """The origin to which downloads of jobs redirect. It is found once; a search that fails is repeated."""

    def __init__(self, settings: Settings) -> None:
        place = settings.job_storage or ""
        self._bucket = place.removeprefix(S3_SCHEME).partition("/")[0] if place.startswith(S3_SCHEME) else None
        self._endpoint_url = settings.s3_endpoint_url
        self._search: asyncio.Task[str | None] | None = None

    async def find(self) -> str | None:
        """Return the origin, such as https://lips.s3.eu-west-1.amazonaws.com.

        None if the server sends the files itself, if S3 has not answered within WAIT_S, or if there are no credentials.
        """
        if self._bucket is None:
            return None
        if self._search is None or (self._search.done() and self._search.result() is None):
            self._search = asyncio.create_task(asyncio.to_thread(find_origin, self._bucket, self._endpoint_url))
        done, _ = await asyncio.wait({self._search}, timeout=WAIT_S)
        return self._search.result() if done else None


def find_origin(bucket: str, endpoint_url: str | None) -> str | None:
    """Return the origin of presigned URLs for a bucket; None, and log why, if none can be signed."""
    from inference.media.s3.client import s3_client
    from inference.media.s3.urls import object_url

    try:
        found = urlsplit(object_url(bucket, "any", s3_client(endpoint_url)))
    except (VisemeError, ValueError) as err:  # botocore raises ValueError for what is no URL
        logger.warning("the page cannot load files of jobs from S3", extra={"reason": str(err)})
        return None
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}"
