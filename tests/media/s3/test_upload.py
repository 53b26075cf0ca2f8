from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from support.faulty_s3 import ErrorResponse, FaultyS3

from inference.errors import AccessDenied, MediaNotFound, StorageError
from inference.media.s3 import client as s3
from inference.media.s3.client import s3_client
from inference.media.s3.upload import PART_BYTES, open_upload

BUSY = ErrorResponse(503, "SlowDown")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3, "FIRST_WAIT_S", 0.0)


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = s3_client(None, "us-east-1")
        client.create_bucket(Bucket="results")
        yield client


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with FaultyS3(b"") as server:
        yield server


MP4 = "video/mp4"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two parts and a few bytes."""
    path = tmp_path / "video.mp4"
    path.write_bytes(b"film" * (PART_BYTES // 2 + 5))
    return path


def unfinished(client: Any) -> int:
    return len(client.list_multipart_uploads(Bucket="results").get("Uploads", []))


def test_an_upload_appears_when_it_is_finished(client: Any, video: Path):
    parts: list[int] = []
    with open_upload("results", "a/video.mp4", client, content_type=MP4) as upload:
        assert unfinished(client) == 1
        upload.upload_file(video, lambda: parts.append(1))
        assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0
        upload.finish()
    found = client.get_object(Bucket="results", Key="a/video.mp4")
    assert found["Body"].read() == video.read_bytes()
    assert (found["ContentType"], found["ETag"].endswith('-3"'), len(parts)) == (MP4, True, 3)
    assert unfinished(client) == 0


def test_an_empty_file_is_an_object_too(client: Any, tmp_path: Path):
    (tmp_path / "empty").touch()
    with open_upload("results", "empty", client, content_type=MP4) as upload:
        upload.upload_file(tmp_path / "empty")
        upload.finish()
    assert client.head_object(Bucket="results", Key="empty")["ContentLength"] == 0


def test_an_aborted_upload_leaves_nothing(client: Any, video: Path):
    def disconnect() -> None:
        if parts.append(1) or len(parts) == 2:
            raise ConnectionResetError

    parts: list[int] = []
    with (
        pytest.raises(ConnectionResetError),
        open_upload("results", "video.mp4", client, content_type=MP4) as upload,
    ):
        upload.upload_file(video, disconnect)
    assert unfinished(client) == 0
    assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0


def test_missing_permissions_are_reported_before_the_upload(client: Any):
    with (
        pytest.raises(MediaNotFound, match="there is no bucket 'no-results'"),
        open_upload("no-results", "a", client, content_type=MP4),
    ):
        pytest.fail("it was opened")
    with (
        pytest.raises(AccessDenied, match="allowed here"),
        open_upload("results", "a", client, content_type=MP4, allowed=("results/out",)),
    ):
        pytest.fail("it was opened")


def test_a_failed_abort_is_only_logged(client: Any, caplog: pytest.LogCaptureFixture):
    with open_upload("results", "a", client, content_type=MP4) as upload:
        upload.id = "unknown to S3"
    assert "could not be aborted" in caplog.text


@pytest.mark.parametrize("n_faults", [2, 3])
def test_parts_that_fail_are_sent_again(faulty: FaultyS3, video: Path, n_faults: int):
    """S3 fails several times, and then works."""
    with open_upload("results", "a", s3_client(faulty.url), content_type=MP4) as upload:
        faulty.faults = [BUSY] * n_faults
        upload.upload_file(video)
        faulty.faults = [BUSY] * n_faults
        upload.finish()
    assert [method for method, _ in faulty.requests].count("PUT") == 3 + n_faults


def test_retries_end(faulty: FaultyS3, video: Path):
    with open_upload("results", "a", s3_client(faulty.url), content_type=MP4) as upload:
        faulty.faults = [BUSY] * 100
        with pytest.raises(StorageError, match="SlowDown"):
            upload.upload_file(video)
        faulty.faults = []
    assert faulty.requests[-1][0] == "DELETE"  # aborted, once it could be
    faulty.faults = [BUSY] * 100
    with (
        pytest.raises(StorageError, match="SlowDown"),
        open_upload("results", "a", s3_client(faulty.url), content_type=MP4),
    ):
        pytest.fail("it was opened")
