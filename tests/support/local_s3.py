"""An S3 of this process: moto's server, which answers to scripts of all origins whatever a bucket's CORS rules are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto.server import ThreadedMotoServer

from inference.media.s3.client import s3_client


@contextmanager
def running_s3(bucket: str) -> Iterator[str]:
    """Yield the URL of a server with one bucket, and set credentials for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            url = "http://{}:{}".format(*server.get_host_and_port())
            s3_client(url).create_bucket(Bucket=bucket)
            yield url
        finally:
            server.stop()
