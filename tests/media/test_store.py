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
from inference.media.store import put_s3

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
