from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_video

from inference.engines import Engines
from inference.media.s3 import client as s3
from inference.media.s3.client import s3_client


@pytest.fixture(scope="session")
def face() -> bytes:
    return make_video(talk(10), crf=10)


@pytest.fixture(scope="session")
def speech() -> bytes:
    return voice(0.4)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.fixture
def bucket(face: bytes, speech: bytes, monkeypatch: pytest.MonkeyPatch, engines: Engines) -> Iterator[Any]:
    """Yield a client of an S3 with the bucket `media`, which contains a face and audio."""
    with mock_aws():
        client = s3_client(None, "us-east-1")
        client.create_bucket(Bucket="media")
        client.put_object(Bucket="media", Key="uploads/an actor.mp4", Body=face)
        client.put_object(Bucket="media", Key="uploads/hello.wav", Body=speech)
        monkeypatch.setattr(engines.sync_engine._remote_files, "_client", client)
        yield client
