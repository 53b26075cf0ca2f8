"""The bound on the bytes of inputs, the margin that the disk keeps, and room made of finished jobs' inputs."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from sqlalchemy import text
from support.waiting import PATIENCE_S

from container.jobs import storage as storage_module
from container.jobs.input_space import InputSpace
from container.jobs.records import JobError, JobRecord
from container.jobs.repository import JobRepository
from container.jobs.s3_storage import S3Storage
from container.jobs.storage import FolderStorage, JobStorage
from container.jobs.sweeper import Sweeper
from inference.errors import MediaNotFound, Overloaded, StorageFull

from .conftest import LIMITS, NEW_JOBS, JobDatabase

TIGHT = replace(LIMITS, max_input_bytes=100, min_free_bytes=0)
MIB = 1 << 20


@pytest.fixture
def tight(database: JobDatabase) -> JobDatabase:
    """A database that takes a hundred bytes of inputs."""
    return replace(database, repository=JobRepository(database.engine, TIGHT, database.clock))


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "files")


def put(storage: JobStorage, tmp_path: Path, job: JobRecord) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * job.input_bytes)
    storage.write(job.id, "input", source)


def has_input(storage: JobStorage, job: JobRecord) -> bool:
    try:
        with storage.read(job.id, "input"):
            return True
    except MediaNotFound:
        return False


def fail_next(database: JobDatabase) -> None:
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))


def test_inputs_are_bounded_by_their_bytes(tight: JobDatabase) -> None:
    first = tight.submit(input_bytes=60)
    with pytest.raises(StorageFull, match=r"have 60 bytes, at most 100: another 41 do not fit"):
        tight.submit(input_bytes=41)
    tight.submit(input_bytes=40)
    with pytest.raises(StorageFull):
        tight.repository.check_input_bytes(1)
    assert tight.repository.input_bytes() == 100
    fail_next(tight)
    with pytest.raises(StorageFull):  # its input is still kept
        tight.submit(input_bytes=1)
    tight.repository.delete(first.number)
    assert tight.repository.input_bytes() == 40
    tight.submit(input_bytes=60)


def test_an_input_over_the_bound_alone_is_refused(tight: JobDatabase) -> None:
    with pytest.raises(StorageFull, match="another 101"):
        tight.submit(input_bytes=101)
    assert tight.repository.input_bytes() == 0
    assert tight.repository.list_page(10) == []


def test_a_repeated_submission_is_counted_once(tight: JobDatabase) -> None:
    new = replace(next(NEW_JOBS), input_bytes=60, idempotency_key="k")
    for one in (new, new, replace(next(NEW_JOBS), idempotency_key="k", request_sha256=new.request_sha256)):
        assert tight.repository.submit(one).job.id == new.id
    assert tight.repository.input_bytes() == 60


def test_submissions_at_once_do_not_exceed_the_bound(tight: JobDatabase) -> None:
    """As of several servers: each has a repository of its own."""
    start, refused, accepted = threading.Barrier(4), list[int](), list[str]()
    new = [replace(next(NEW_JOBS), input_bytes=15, client=f"client-{i % 4}") for i in range(12)]

    def submit(mine: list[Any]) -> None:
        repository = JobRepository(tight.engine, TIGHT, tight.clock)
        start.wait(PATIENCE_S)
        for one in mine:
            try:
                accepted.append(repository.submit(one).job.id)
            except StorageFull:
                refused.append(1)

    threads = [threading.Thread(target=submit, args=(new[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(accepted), len(refused)) == (6, 6)
    with tight.engine.connect() as db:
        assert db.scalar(text("SELECT sum(input_bytes) FROM jobs")) == tight.repository.input_bytes() == 90


def test_finished_inputs_make_room_for_new_ones(tight: JobDatabase, storage: FolderStorage, tmp_path: Path) -> None:
    space = InputSpace(tight.repository, storage, TIGHT)
    jobs = [tight.submit(input_bytes=30) for _ in range(3)]
    for job in jobs:
        put(storage, tmp_path, job)
    for _ in range(2):
        fail_next(tight)
        tight.clock.now += 1
    assert space.make_room() == 0  # 90 of 100
    late = tight.submit(input_bytes=10)
    put(storage, tmp_path, late)
    assert space.make_room() == 1
    assert [has_input(storage, job) for job in (*jobs, late)] == [False, True, True, True]
    assert tight.repository.input_bytes() == 70
    assert tight.find(jobs[0].id).input_bytes == 30  # as it was submitted
    tight.clock.now += TIGHT.keep_s
    Sweeper(tight.queue, tight.repository, storage, tight.clock).sweep()
    assert tight.repository.input_bytes() == 40  # nothing was counted twice


def test_inputs_of_jobs_that_may_run_are_kept(tight: JobDatabase, storage: FolderStorage, tmp_path: Path) -> None:
    jobs = [tight.submit(input_bytes=50) for _ in range(2)]
    for job in jobs:
        put(storage, tmp_path, job)
    tight.claim()
    assert InputSpace(tight.repository, storage, TIGHT).make_room() == 0
    assert all(has_input(storage, job) for job in jobs)


def test_an_input_that_cannot_be_deleted_is_still_counted(
    tight: JobDatabase, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tight.submit(input_bytes=100)
    put(storage, tmp_path, job)
    fail_next(tight)
    space = InputSpace(tight.repository, storage, TIGHT)
    with monkeypatch.context() as broken:

        def refuse(_job_id: str) -> None:
            raise Overloaded("the files of a job could not be stored (Input/output error); try again later")

        broken.setattr(storage, "delete_input", refuse)
        assert space.make_room() == 0
    assert tight.repository.input_bytes() == 100
    assert space.make_room() == 1


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_disk_keeps_a_margin(
    database: JobDatabase, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = InputSpace(database.repository, storage, replace(LIMITS, min_free_bytes=100 * MIB))
    free = 110 * MIB
    monkeypatch.setattr(storage, "free_bytes", lambda: free)
    monkeypatch.setattr(storage, "bytes_to_write", lambda _source: 6 * MIB)  # from another file system
    space.check(10 * MIB)
    with pytest.raises(StorageFull, match=f"has {free} bytes free; expected {100 * MIB} beside"):
        space.check(10 * MIB + 1)
    with space.writing(tmp_path), pytest.raises(StorageFull), space.writing(tmp_path):
        pass  # the two share no bytes
    with space.writing(tmp_path):
        pass


def test_a_file_that_is_only_moved_needs_no_space(storage: FolderStorage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 1000)
    assert storage.bytes_to_write(tmp_path / "source") == 0
    assert storage.free_bytes() > 0


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_disk_that_is_nearly_full_is_crowded(
    database: JobDatabase, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = database.submit()
    put(storage, tmp_path, job)
    fail_next(database)
    space = InputSpace(database.repository, storage, replace(LIMITS, min_free_bytes=100))
    usage = storage_module.shutil.disk_usage(storage.root)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage._replace(free=201))
    assert space.make_room() == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage._replace(free=199))
    assert space.make_room() == 1


@mock_aws
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_inputs_in_s3_are_bounded_and_make_room(tight: JobDatabase, tmp_path: Path) -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket="jobs")
    storage = S3Storage("jobs", "files/", lambda: client)
    assert storage.free_bytes() is None
    job = tight.submit(input_bytes=100)
    put(storage, tmp_path, job)
    space = InputSpace(tight.repository, storage, TIGHT)
    with pytest.raises(StorageFull):
        space.check(1)
    fail_next(tight)
    assert space.make_room() == 1
    assert not has_input(storage, job)
    space.check(100)
