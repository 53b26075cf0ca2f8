from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_s3 import FaultyS3, Refusal
from moto import mock_aws

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, StorageError
from inference.media import s3
from inference.media.s3 import s3_client
from inference.media.store import PART_BYTES, open_upload, put_s3

BUSY = Refusal(503, "SlowDown")


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


def test_bytes_become_an_object(client: Any):
    assert put_s3(b"{}", "results", "a/b.json", client, content_type="application/json") == "s3://results/a/b.json"
    found = client.get_object(Bucket="results", Key="a/b.json")
    assert found["Body"].read() == b"{}"
    assert found["ContentType"] == "application/json"


def test_a_large_file_goes_in_parts(client: Any, tmp_path: Path):
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(range(256)) * 40_000)  # 10 MB, over boto3's threshold of 8
    put_s3(path, "results", "film.mp4", client, content_type="video/mp4")
    found = client.get_object(Bucket="results", Key="film.mp4")
    assert found["Body"].read() == path.read_bytes()
    assert found["ETag"].endswith('-2"')
    assert found["ContentType"] == "video/mp4"


def test_a_missing_bucket(client: Any):
    with pytest.raises(MediaNotFound, match="there is no bucket 'no-results'"):
        put_s3(b"x", "no-results", "a", client, content_type="text/plain")


def test_a_bucket_that_is_not_allowed(client: Any):
    with pytest.raises(AccessDenied, match="allowed here"):
        put_s3(b"x", "results", "a", client, content_type="text/plain", allowed=("results/out",))
    assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0


def test_a_key_that_is_none(client: Any):
    with pytest.raises(InvalidRequest, match="expected"):
        put_s3(b"x", "results", "out/../a", client, content_type="text/plain", allowed=("results/out",))


@pytest.mark.parametrize("size", [10, 10 << 20])
def test_a_refusal(faulty: FaultyS3, size: int):
    faulty.faults = [Refusal(403, "AccessDenied")] * 3
    with pytest.raises(AccessDenied, match=r"access denied \(AccessDenied\)"):
        put_s3(b"x" * size, "results", "a", s3_client(faulty.url), content_type="text/plain")


def test_a_busy_server_is_asked_again(faulty: FaultyS3):
    faulty.faults = [BUSY] * 3
    put_s3(b"x", "results", "a", s3_client(faulty.url), content_type="text/plain")
    assert len(faulty.seen) == 4


def test_a_busy_server_is_not_asked_for_ever(faulty: FaultyS3):
    faulty.faults = [BUSY] * 100
    with pytest.raises(StorageError, match="SlowDown"):
        put_s3(b"x", "results", "a", s3_client(faulty.url), content_type="text/plain")


def test_a_file_that_is_not_there_is_no_fault_of_storage(client: Any, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        put_s3(tmp_path / "missing", "results", "a", client, content_type="text/plain")


MP4 = "video/mp4"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two parts and a bit."""
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film" * (PART_BYTES // 2 + 5))
    return path


def unfinished(client: Any) -> int:
    return len(client.list_multipart_uploads(Bucket="results").get("Uploads", []))


def test_an_upload_appears_when_it_is_finished(client: Any, film: Path):
    told: list[int] = []
    with open_upload("results", "a/film.mp4", client, content_type=MP4) as upload:
        assert unfinished(client) == 1
        upload.send(film, lambda: told.append(1))
        assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0
        upload.finish()
    found = client.get_object(Bucket="results", Key="a/film.mp4")
    assert found["Body"].read() == film.read_bytes()
    assert (found["ContentType"], found["ETag"].endswith('-3"'), len(told)) == (MP4, True, 3)
    assert unfinished(client) == 0


def test_an_empty_file_is_an_object_too(client: Any, tmp_path: Path):
    (tmp_path / "empty").touch()
    with open_upload("results", "empty", client, content_type=MP4) as upload:
        upload.send(tmp_path / "empty")
        upload.finish()
    assert client.head_object(Bucket="results", Key="empty")["ContentLength"] == 0


def test_an_upload_that_is_given_up_leaves_nothing(client: Any, film: Path):
    def leave() -> None:
        if told.append(1) or len(told) == 2:
            raise ConnectionResetError

    told: list[int] = []
    with (
        pytest.raises(ConnectionResetError),
        open_upload("results", "film.mp4", client, content_type=MP4) as upload,
    ):
        upload.send(film, leave)
    assert unfinished(client) == 0
    assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0


def test_whether_it_may_be_written_is_known_before_there_is_anything_to_write(client: Any):
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


def test_what_s3_does_not_let_go_of_is_only_logged(client: Any, caplog: pytest.LogCaptureFixture):
    with open_upload("results", "a", client, content_type=MP4) as upload:
        upload.id = "unknown to S3"
    assert "stay in its bucket" in caplog.text


@pytest.mark.parametrize("n_faults", [2, 3])
def test_parts_that_fail_are_sent_again(faulty: FaultyS3, film: Path, n_faults: int):
    """S3 fails twice, and then works."""
    with open_upload("results", "a", s3_client(faulty.url), content_type=MP4) as upload:
        faulty.faults = [BUSY] * n_faults
        upload.send(film)
        faulty.faults = [BUSY] * n_faults
        upload.finish()
    assert [method for method, _ in faulty.seen].count("PUT") == 3 + n_faults


def test_an_s3_that_never_works(faulty: FaultyS3, film: Path):
    with open_upload("results", "a", s3_client(faulty.url), content_type=MP4) as upload:
        faulty.faults = [BUSY] * 100
        with pytest.raises(StorageError, match="SlowDown"):
            upload.send(film)
        faulty.faults = []
    assert faulty.seen[-1][0] == "DELETE"  # aborted, once it could be
    faulty.faults = [BUSY] * 100
    with (
        pytest.raises(StorageError, match="SlowDown"),
        open_upload("results", "a", s3_client(faulty.url), content_type=MP4),
    ):
        pytest.fail("it was opened")
