"""The sweeper."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from container.jobs.job_queue import LEASE_S
from container.jobs.processes import ProcessIdentity
from container.jobs.records import JobError, JobState
from container.jobs.storage import FolderStorage
from container.jobs.sweeper import ORPHAN_AGE_S, Sweeper

from .conftest import LIMITS, JobDatabase


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "files")


@pytest.fixture
def sweeper(database: JobDatabase, storage: FolderStorage) -> Sweeper:
    return Sweeper(database.queue, database.repository, storage, database.clock)


def write(storage: FolderStorage, job_id: str, *keys: str) -> None:
    for key in keys:
        source = storage.root / "source"
        source.write_bytes(b"x")
        storage.write(job_id, key, source)


def files_of(storage: FolderStorage, job_id: str) -> list[str]:
    folder = storage.root / job_id
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_of_lost_attempts_are_swept_once_the_job_has_ended(
    database: JobDatabase, storage: FolderStorage, sweeper: Sweeper
) -> None:
    job = database.submit()
    database.claim()
    write(storage, job.id, "input", "attempts/1/a.mp4", "logs/1.txt")
    database.clock.now += LEASE_S
    assert sweeper.free_expired() == [job.id]
    lease = database.claim()
    write(storage, job.id, "attempts/2/a.mp4")
    sweeper.sweep()
    assert len(files_of(storage, job.id)) == 4  # it runs
    database.queue.publish(lease, {}, [])
    sweeper.sweep()
    assert files_of(storage, job.id) == ["attempts/2/a.mp4", "input", "logs/1.txt"]
    assert sweeper.n_swept == 1
    sweeper.sweep()
    assert sweeper.n_swept == 1


def test_a_failed_job_keeps_no_outputs(database: JobDatabase, storage: FolderStorage, sweeper: Sweeper) -> None:
    job = database.submit()
    write(storage, job.id, "input", "attempts/1/a.mp4")
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))
    sweeper.sweep()
    assert files_of(storage, job.id) == ["input"]


def test_a_job_is_deleted_with_its_files_after_its_time(
    database: JobDatabase, storage: FolderStorage, sweeper: Sweeper
) -> None:
    job = database.submit()
    write(storage, job.id, "input", "attempts/1/a.mp4")
    database.queue.publish(database.claim(), {}, [])
    database.clock.now += LIMITS.keep_s - 1
    sweeper.sweep()
    assert files_of(storage, job.id)
    database.clock.now += 1
    sweeper.sweep()
    assert files_of(storage, job.id) == []
    assert database.repository.known_ids([job.id]) == set()


def test_files_that_cannot_be_deleted_are_tried_again(
    database: JobDatabase, storage: FolderStorage, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = database.submit()
    write(storage, job.id, "attempts/1/a.mp4")
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))
    with monkeypatch.context() as broken:

        def rmtree(_path: Path) -> None:
            raise OSError(5, "Input/output error")

        broken.setattr("shutil.rmtree", rmtree)
        sweeper.sweep()
    assert [one.id for one in database.repository.unswept()] == [job.id]
    sweeper.sweep()
    assert database.repository.unswept() == []


def test_files_of_submissions_that_were_not_acknowledged_are_deleted(
    database: JobDatabase, storage: FolderStorage, sweeper: Sweeper
) -> None:
    job = database.submit()
    orphan, recent = "e" * 32, "f" * 32
    for job_id in (job.id, orphan, recent):
        write(storage, job_id, "input")
    database.clock.now = time.time()
    for job_id in (job.id, orphan):
        os.utime(storage.root / job_id, times=(0, database.clock.now - ORPHAN_AGE_S - 1))
    assert sweeper.delete_orphans() == 1
    assert (files_of(storage, orphan), files_of(storage, recent), files_of(storage, job.id)) == (
        [],
        ["input"],
        ["input"],
    )


def test_turns_are_forgotten_once_they_change_nothing(database: JobDatabase, sweeper: Sweeper) -> None:
    """There would be a row for each address that has ever submitted a job."""
    for i in range(3):
        database.submit(client=f"client-{i}")
    for _ in range(2):
        database.submit(client="client-0")
    for _ in range(3):
        database.claim()
    assert database.repository.forget_turns() == 2
    database.submit(client="client-1")  # as if it were new
    order = [database.find(database.claim().job_id).client for _ in range(3)]
    assert order == ["client-0", "client-1", "client-0"]
    sweeper.sweep()
    assert database.repository.forget_turns() == 0


def test_leases_of_dead_processes_of_this_host_are_freed(database: JobDatabase, sweeper: Sweeper) -> None:
    job, other = database.submit(), database.submit()
    current = ProcessIdentity.current()
    database.claim("worker-a", ProcessIdentity(current.host, f"{os.getpid()}:1"))  # a number that was given again
    database.claim("worker-b", current)
    assert sweeper.free_dead() == [job.id]
    assert [database.find(one.id).state for one in (job, other)] == [JobState.QUEUED, JobState.STARTING]
