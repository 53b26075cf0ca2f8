from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError, ReadTimeoutError
from moto import mock_aws
from support.faulty_s3 import ErrorResponse, FaultyS3

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, MediaTooLarge, StorageError
from inference.media.s3 import client as s3
from inference.media.s3 import download
from inference.media.s3.download import (
    PART_BYTES,
    check_allowed,
    download_object,
    local_name,
    s3_client,
    temporary_download,
)

ROOT = Path(__file__).parents[3]
CONTENTS = bytes(range(256)) * 70_000  # 17 MB: three parts
BUSY = ErrorResponse(503, "SlowDown")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3, "FIRST_WAIT_S", 0.0)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = s3_client(None, "us-east-1")
        client.create_bucket(Bucket="videos")
        client.put_object(Bucket="videos", Key="in/clip.mp4", Body=CONTENTS)
        client.put_object(Bucket="videos", Key="empty.mp4", Body=b"")
        yield client


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with FaultyS3(CONTENTS) as server:
        yield server


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).rglob("*"))


def fetch_from(server: FaultyS3, folder: Path) -> bytes:
    path = download_object("videos", "in/clip.mp4", folder, s3_client(server.url), max_bytes=1 << 30)
    return path.read_bytes()


def test_an_object_is_a_file_while_in_use(client: Any):
    with temporary_download("videos", "in/clip.mp4", client, max_bytes=1 << 30) as path:
        assert path.name == "clip.mp4"
        assert path.read_bytes() == CONTENTS
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]
    assert leftovers() == []


@pytest.mark.parametrize(
    "key",
    [
        "two words.mp4",
        "a+b&c=d.mp4",
        "100%25done.mp4",
        "視頻 🎬.mp4",
        "deep//double/slash.mp4",
        "/leading.mp4",
        "it's\"so.mp4",
    ],
)
def test_any_key_is_downloaded_as_it_is_written(client: Any, key: str):
    client.put_object(Bucket="videos", Key=key, Body=b"contents")
    with temporary_download("videos", key, client, max_bytes=10) as path:
        assert path.read_bytes() == b"contents"


def test_an_object_is_deleted_if_reading_fails(client: Any):
    with pytest.raises(KeyError), temporary_download("videos", "in/clip.mp4", client, max_bytes=1 << 30):
        raise KeyError("of the reader")
    assert leftovers() == []


def test_the_version_that_is_named_is_read(client: Any):
    client.put_bucket_versioning(Bucket="videos", VersioningConfiguration={"Status": "Enabled"})
    old, new = (client.put_object(Bucket="videos", Key="a.mp4", Body=body) for body in (b"old", b"newer"))
    for put, contents in ((old, b"old"), (new, b"newer"), ({"ETag": new["ETag"]}, b"newer")):
        named = {"version_id": put.get("VersionId"), "etag": put["ETag"].strip('"')}
        with temporary_download("videos", "a.mp4", client, max_bytes=10, **named) as path:
            assert path.read_bytes() == contents


def test_a_replaced_object_is_not_read_for_the_one_that_is_named(client: Any):
    """In a bucket without versions the ETag tells."""
    old, new = (client.put_object(Bucket="videos", Key="a.mp4", Body=body)["ETag"] for body in (b"old", b"newer"))
    with (
        pytest.raises(MediaNotFound, match=f"was replaced; found ETag {new}"),
        temporary_download("videos", "a.mp4", client, max_bytes=10, etag=old.strip('"')),
    ):
        pytest.fail("read")


def test_an_empty_object_is_an_empty_file(client: Any):
    with temporary_download("videos", "empty.mp4", client, max_bytes=10) as path:
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("bucket", "key", "words"),
    [
        ("videos", "nothing.mp4", r"s3://videos/nothing\.mp4: there is no key 'nothing\.mp4' in bucket 'videos'"),
        ("no-such-videos", "clip.mp4", r"s3://no-such-videos/clip\.mp4: there is no bucket 'no-such-videos'"),
    ],
)
def test_missing_objects_are_reported(client: Any, bucket: str, key: str, words: str):
    with pytest.raises(MediaNotFound, match=words), temporary_download(bucket, key, client, max_bytes=1 << 30):
        pass
    assert leftovers() == []


def test_the_size_is_checked_before_the_download(faulty: FaultyS3):
    client = s3_client(faulty.url)
    with (
        pytest.raises(MediaTooLarge, match=f"{len(CONTENTS)} bytes; at most 1000 expected"),
        temporary_download("videos", "in/clip.mp4", client, max_bytes=1000),
    ):
        pass
    assert [method for method, _ in faulty.requests] == ["HEAD"]


def test_parts_are_read_by_range(faulty: FaultyS3, tmp_path: Path):
    assert fetch_from(faulty, tmp_path) == CONTENTS
    assert [byte_range for _, byte_range in faulty.requests] == [
        None,
        f"bytes=0-{PART_BYTES - 1}",
        f"bytes={PART_BYTES}-{2 * PART_BYTES - 1}",
        f"bytes={2 * PART_BYTES}-{len(CONTENTS) - 1}",
    ]


def test_a_busy_server_is_retried(faulty: FaultyS3, tmp_path: Path):
    faulty.faults = [BUSY, BUSY, BUSY, None, BUSY, ErrorResponse(500, "InternalError"), BUSY]
    assert fetch_from(faulty, tmp_path) == CONTENTS


def test_retries_end(faulty: FaultyS3, tmp_path: Path):
    faulty.faults = [BUSY] * 100
    with pytest.raises(StorageError, match=r"S3 failed \(503\)|SlowDown"):
        fetch_from(faulty, tmp_path)
    assert len(faulty.requests) <= 2 * s3.MAX_ATTEMPTS


def test_a_truncated_part_is_resumed(faulty: FaultyS3, tmp_path: Path):
    faulty.faults = [None, 3 << 20, 0, 1000]
    assert fetch_from(faulty, tmp_path) == CONTENTS
    starts = [int(byte_range[6:].split("-")[0]) for _, byte_range in faulty.requests if byte_range]
    assert starts[:2] == [0, 3 << 20]
    assert starts == sorted(starts)


def test_repeated_truncation_is_an_error(faulty: FaultyS3, tmp_path: Path):
    faulty.faults = [None] + [10] * 100
    with pytest.raises(StorageError, match=r"s3://videos/in/clip\.mp4: S3 cannot be reached, or broke off"):
        fetch_from(faulty, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    assert len(faulty.requests) <= 1 + 2 * s3.MAX_ATTEMPTS


def test_a_replaced_object_is_not_mixed(faulty: FaultyS3, tmp_path: Path, monkeypatch):
    read_part = download.read_part

    def replace_then_read(*args: Any) -> None:
        read_part(*args)
        faulty.etag = '"version-2"'

    monkeypatch.setattr(download, "read_part", replace_then_read)
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        fetch_from(faulty, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_storage_without_ranges_is_reported(faulty: FaultyS3, tmp_path: Path):
    faulty.ignores_ranges = True
    with pytest.raises(StorageError, match="does not support ranges"):
        fetch_from(faulty, tmp_path)


def test_access_denied_differs_from_missing(faulty: FaultyS3, tmp_path: Path):
    faulty.faults = [ErrorResponse(403, "AccessDenied")]
    with pytest.raises(AccessDenied, match=r"s3://videos/in/clip\.mp4: access denied \(403\)"):
        fetch_from(faulty, tmp_path)
    assert len(faulty.requests) == 1


def test_a_bucket_in_another_region_is_reported(faulty: FaultyS3, tmp_path: Path):
    elsewhere = ErrorResponse(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-3"})
    faulty.faults = [elsewhere] * 20
    with pytest.raises(StorageError, match="in region eu-west-3"):
        fetch_from(faulty, tmp_path)


def test_unreachable_storage(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with pytest.raises(StorageError, match=r"cannot be reached, or broke off \(EndpointConnectionError\)") as caught:
        download_object("videos", "clip.mp4", tmp_path, s3_client("http://127.0.0.1:9"), max_bytes=10)
    assert "127.0.0.1" not in str(caught.value)


def test_a_local_disk_error_is_reported(client: Any, tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be stored on this machine"):
        download_object("videos", "in/clip.mp4", tmp_path / "missing", client, max_bytes=1 << 30)


def test_a_read_timeout_is_not_a_disk_error(faulty: FaultyS3, tmp_path: Path, monkeypatch):
    def time_out(*_: Any) -> None:
        raise ReadTimeoutError(endpoint_url=faulty.url)

    monkeypatch.setattr(download, "read_part", time_out)
    with pytest.raises(StorageError, match=r"cannot be reached, or broke off \(ReadTimeoutError\)"):
        fetch_from(faulty, tmp_path)


def test_no_credentials(tmp_path: Path):
    class WithoutCredentials:
        def head_object(self, **_) -> None:
            raise NoCredentialsError

    with pytest.raises(AccessDenied, match="there are no AWS credentials here"):
        download_object("videos", "clip.mp4", tmp_path, WithoutCredentials(), max_bytes=10)


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        (("*",), True),
        (("videos",), True),
        (("other", "videos"), True),
        (("videos/in",), True),
        (("videos/in/",), True),
        (("videos/in/clip.mp4",), False),  # a folder, not a key
        (("videos/i",), False),
        (("video",), False),
        (("other",), False),
        ((), False),
    ],
)
def test_allowed_buckets(allowed: tuple[str, ...], is_allowed: bool):
    if is_allowed:
        check_allowed("videos", "in/clip.mp4", allowed)
    else:
        with pytest.raises(AccessDenied, match="not in a bucket or folder that is allowed here"):
            check_allowed("videos", "in/clip.mp4", allowed)


def test_a_bucket_that_is_not_allowed_gets_no_request(faulty: FaultyS3, tmp_path: Path):
    with pytest.raises(AccessDenied):
        download_object("videos", "clip.mp4", tmp_path, s3_client(faulty.url), max_bytes=10, allowed=("other",))
    assert faulty.requests == []


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("videos", "in/../secret/clip.mp4"),
        ("videos", "./clip.mp4"),
        ("videos", ""),
        ("videos", "x" * 1025),
        ("videos", "ü" * 600),
        ("videos", "a\0b"),
        ("arn:aws:s3:us-east-1:123456789012:accesspoint/x", "clip.mp4"),
        ("Videos", "clip.mp4"),
        ("x" * 64, "clip.mp4"),
    ],
)
def test_invalid_names(client: Any, tmp_path: Path, bucket: str, key: str):
    with pytest.raises(InvalidRequest, match="expected"):
        download_object(bucket, key, tmp_path, client, max_bytes=10)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/b/clip.mp4", "clip.mp4"),
        ("my clip.mp4", "my_clip.mp4"),
        ("a/..hidden", "hidden"),
        ("folder/", "folder"),
        ("...", "object"),
        ("x" * 500 + ".mp4", "x" * 96 + ".mp4"),
        ("a\\b;c$(d).mp4", "a_b_c_d_.mp4"),
    ],
)
def test_keys_become_valid_file_names(key: str, name: str):
    assert local_name(key) == name


def test_folders_of_killed_processes_are_deleted_and_no_others(client: Any):
    code = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from inference.media.s3.download import private_folder\n"
        "with private_folder() as folder:\n"
        "    (folder / 'video').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code, tempfile.gettempdir()], cwd=ROOT, check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(leftovers()) == 2
    with (
        temporary_download("videos", "in/clip.mp4", client, max_bytes=1 << 30) as first,
        temporary_download("videos", "in/clip.mp4", client, max_bytes=1 << 30) as second,
    ):
        assert first != second
        assert len(leftovers()) == 4
        assert first.exists()
    assert leftovers() == []


def test_importing_does_not_load_boto3():
    check = "import sys, inference.media.s3.download, inference.media.s3.upload; print('boto3' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "False"
