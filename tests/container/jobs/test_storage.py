"""The files of jobs, in a folder and in S3."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from container.jobs.s3_storage import S3Storage
from container.jobs.storage import FolderStorage, JobStorage, log_key
from inference.errors import MediaNotFound, Overloaded

ONE, OTHER = "1" * 32, "2" * 32


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStorage]:
    if request.param == "folder":
        yield FolderStorage(tmp_path / "jobs")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="viseme-test")
        yield S3Storage("viseme-test", "jobs/", lambda: client)


def source(tmp_path: Path, content: bytes = b"video") -> Path:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path


def write(storage: JobStorage, tmp_path: Path, job_id: str, *keys: str) -> None:
    for key in keys:
        storage.write(job_id, key, source(tmp_path, key.encode()))


def contents(storage: JobStorage, job_id: str, key: str) -> bytes:
    with storage.read(job_id, key) as path:
        return path.read_bytes()


def test_what_is_written_is_read(storage: JobStorage, tmp_path: Path) -> None:
    stored = storage.write(ONE, "attempts/1/wav2lip.mp4", source(tmp_path, b"x" * 3_000_000))
    assert stored.n_bytes == 3_000_000
    assert stored.sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert contents(storage, ONE, "attempts/1/wav2lip.mp4") == b"x" * 3_000_000
    write(storage, tmp_path, ONE, "input")
    storage.write(ONE, "input", source(tmp_path, b"again"))
    assert contents(storage, ONE, "input") == b"again"


def test_files_of_lost_attempts_are_deleted(storage: JobStorage, tmp_path: Path) -> None:
    write(storage, tmp_path, ONE, "input", "attempts/1/a.mp4", "attempts/2/a.mp4", "attempts/21/a.mp4", log_key(1))
    write(storage, tmp_path, OTHER, "attempts/1/a.mp4")
    storage.delete_attempts(ONE, kept=2)
    for key in ("attempts/1/a.mp4", "attempts/21/a.mp4"):
        with pytest.raises(MediaNotFound), storage.read(ONE, key):
            pass
    assert contents(storage, ONE, "attempts/2/a.mp4") == b"attempts/2/a.mp4"
    assert contents(storage, ONE, log_key(1))
    assert contents(storage, ONE, "input")
    assert contents(storage, OTHER, "attempts/1/a.mp4")
    storage.delete_attempts(ONE, kept=None)
    with pytest.raises(MediaNotFound), storage.read(ONE, "attempts/2/a.mp4"):
        pass


def test_one_attempt_is_deleted(storage: JobStorage, tmp_path: Path) -> None:
    write(storage, tmp_path, ONE, "attempts/1/a.mp4", "attempts/12/a.mp4")
    storage.delete_attempt(ONE, 1)
    storage.delete_attempt(ONE, 3)
    with pytest.raises(MediaNotFound), storage.read(ONE, "attempts/1/a.mp4"):
        pass
    assert contents(storage, ONE, "attempts/12/a.mp4")


def test_a_deleted_job_leaves_nothing(storage: JobStorage, tmp_path: Path) -> None:
    write(storage, tmp_path, ONE, "input", "attempts/1/a.mp4", log_key(1))
    write(storage, tmp_path, OTHER, "input")
    later = time.time() + 10
    assert set(storage.job_ids(later)) == {ONE, OTHER}
    storage.delete(ONE)
    storage.delete(ONE)  # of what is gone, nothing is left to delete
    storage.delete_attempts(ONE, kept=None)
    assert set(storage.job_ids(later)) == {OTHER}
    assert list(storage.job_ids(time.time() - 3600)) == []


@pytest.mark.parametrize(
    "key", ["../input", "attempts/1/../../x", "/etc/passwd", "attempts/1/.hidden", "x", "", "input\n"]
)
def test_names_outside_the_job_are_not_found(storage: JobStorage, key: str) -> None:
    with pytest.raises(MediaNotFound), storage.read(ONE, key):
        pass


@pytest.mark.parametrize("job_id", ["..", "x" * 32, "1" * 31, "1" * 32 + "\n"])
def test_ids_that_are_none_are_not_found(storage: JobStorage, job_id: str) -> None:
    with pytest.raises(MediaNotFound), storage.read(job_id, "input"):
        pass
    with pytest.raises(MediaNotFound):
        storage.delete(job_id)


def test_a_folder_flushes_the_file_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path / "jobs")
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.write(ONE, "input", source(tmp_path))
    assert flushed[0].endswith(".partial")
    assert flushed[1:] == [ONE, "jobs"]


def test_a_folder_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path / "jobs")

    def fsync(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Overloaded, match="No space left on device"):
        storage.write(ONE, "input", source(tmp_path))
    assert [path for path in (tmp_path / "jobs").rglob("*") if path.is_file()] == []


def test_s3_gives_links(tmp_path: Path, storage: JobStorage) -> None:
    write(storage, tmp_path, ONE, "attempts/1/a.mp4")
    url = storage.url(ONE, "attempts/1/a.mp4")
    if isinstance(storage, FolderStorage):
        assert url is None
    else:
        assert url is not None
        assert f"jobs/{ONE}/attempts/1/a.mp4?" in url


def test_every_job_with_old_files_is_found(storage: JobStorage, tmp_path: Path) -> None:
    """Also one whose input is gone: a worker that was stopped for days may store a log of a deleted job."""
    write(storage, tmp_path, ONE, "input", "logs/1.txt", "attempts/1/a.mp4")
    write(storage, tmp_path, OTHER, "logs/1.txt")
    assert list(storage.job_ids(time.time() - 3600)) == []
    assert sorted(storage.job_ids(time.time() + 3600)) == [ONE, OTHER]


def test_a_job_that_another_server_deletes_meanwhile_is_not_found(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "jobs")
    for job_id in (ONE, OTHER):
        write(storage, tmp_path, job_id, "input")
    found = storage.job_ids(time.time() + 1)
    first = next(found)
    storage.delete(ONE if first == OTHER else OTHER)
    assert list(found) == []


def test_a_folder_that_two_servers_delete_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path / "jobs")
    write(storage, tmp_path, ONE, "input", log_key(1))
    unlink = os.unlink

    def unlink_late(path: str, *, dir_fd: int | None = None) -> None:
        """Delete a file that the other server has deleted a moment before."""
        unlink(path, dir_fd=dir_fd)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_late)
    storage.delete(ONE)
    assert list((tmp_path / "jobs").iterdir()) == []
