"""The runner, with workers that do what a test says."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from container.jobs import runner as runner_module
from container.jobs.job_queue import LEASE_S
from container.jobs.records import AttemptOutcome, JobRecord, JobState, Lease
from container.jobs.runner import JobRunner, RunnerOptions
from container.jobs.storage import FolderStorage
from container.worker.messages import (
    LOG_NAME,
    AnswerMessage,
    Failed,
    JobDone,
    JobOutput,
    Progress,
    RequestParsed,
    WordsRead,
    WorkerRequest,
)
from inference.error_responses import Failure
from inference.errors import StorageError, WorkerDied

from .conftest import THIS_PROCESS, JobDatabase

Script = Callable[[WorkerRequest], AsyncGenerator[AnswerMessage]]


class ScriptedPool:
    """Runs each request by the next of its scripts, or by the last one."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.n_canceled = 0

    async def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            async for message in script(worker_request):
                yield message
        except (GeneratorExit, asyncio.CancelledError):
            self.n_canceled += 1
            raise


async def succeed(request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
    assert request.is_job
    assert request.body.read_bytes() == b"input"
    yield Progress("syncing", 0.5)
    yield WordsRead(({"word": "bin"},))
    (request.folder / LOG_NAME).write_text("a line of the model\n")
    (request.folder / "video.mp4").write_bytes(b"video")
    output = JobOutput("wav2lip.mp4", request.folder / "video.mp4", "video/mp4", {"num_frames": 75})
    yield JobDone({"status": "success"}, (output,), 800.0, None)


def fail_with(code: str, status: int) -> Script:
    async def fail(_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        yield Failed(Failure(status, code, "a reason"))

    return fail


async def die(_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
    yield Progress("syncing", 0.1)
    raise WorkerDied("the worker process died")


async def hang(_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
    yield Progress("syncing", 0.1)
    await asyncio.Event().wait()


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "files")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RENEWAL_S", 0.02)
    monkeypatch.setattr("container.jobs.retry.DATABASE_RETRY_S", 0.01)


@pytest.fixture
def job(database: JobDatabase, storage: FolderStorage, tmp_path: Path) -> JobRecord:
    job = database.submit()
    (tmp_path / "body").write_bytes(b"input")
    storage.write(job.id, "input", tmp_path / "body")
    return job


def make_runner(database: JobDatabase, storage: FolderStorage, pool: ScriptedPool) -> JobRunner:
    return JobRunner(database.queue, storage, pool, RunnerOptions("worker-a", 600.0), THIS_PROCESS)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def attempt_files(storage: FolderStorage, job: JobRecord) -> list[str]:
    folder = storage.root / job.id / "attempts"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_job_is_run_and_published(database: JobDatabase, storage: FolderStorage, job: JobRecord) -> None:
    runner = make_runner(database, storage, ScriptedPool(succeed))
    assert asyncio.run(runner.run_next())
    done = database.find(job.id)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"status": "success"})
    (output,) = done.outputs
    assert (output.name, output.key, output.n_bytes) == ("wav2lip.mp4", "attempts/1/wav2lip.mp4", 5)
    assert output.details == {"num_frames": 75}
    with storage.read(job.id, "attempts/1/wav2lip.mp4") as path:
        assert path.read_bytes() == b"video"
    with storage.read(job.id, "logs/1.txt") as path:
        assert path.read_text() == "a line of the model\n"
    kinds = [one.kind for one in database.repository.events_after(job.number)]
    assert kinds == ["state", "state", "state", "progress", "words", "state"]
    assert not asyncio.run(runner.run_next())


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_progress_is_an_event_only_if_it_changes(database: JobDatabase, storage: FolderStorage, job: JobRecord) -> None:
    """A job of two hours reports it thousands of times."""

    async def report_often(request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        for stage in ("reading", "syncing"):
            for i in range(100):
                yield Progress(stage, i / 5000)
        async for message in succeed(request):
            yield message

    asyncio.run(make_runner(database, storage, ScriptedPool(report_often)).run_next())
    events = [one.data for one in database.repository.events_after(job.number) if one.kind == "progress"]
    found = [(one["stage"], one["progress"]) for one in events]
    assert found == [("reading", 0), ("reading", 1), ("syncing", 0), ("syncing", 1), ("syncing", 50)]


def test_the_callers_mistake_is_final(database: JobDatabase, storage: FolderStorage, job: JobRecord) -> None:
    asyncio.run(make_runner(database, storage, ScriptedPool(fail_with("no_face_found", 400))).run_next())
    failed = database.find(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.status) == ("no_face_found", 400)


@pytest.mark.parametrize("script", [die, fail_with("storage_unavailable", 502), fail_with("out_of_memory", 507)])
def test_what_may_pass_is_tried_again(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, script: Script
) -> None:
    runner = make_runner(database, storage, ScriptedPool(script, succeed))
    assert asyncio.run(runner.run_next())
    assert database.find(job.id).state is JobState.QUEUED
    assert not asyncio.run(runner.run_next())  # not at once
    database.clock.now += runner_module.RETRY_DELAYS_S[0]
    assert asyncio.run(runner.run_next())
    done = database.find(job.id)
    assert done.state is JobState.SUCCEEDED
    assert [one.outcome for one in done.attempts] == [AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED]
    error = done.attempts[0].error
    assert error is not None
    assert error.message == ("the worker process died in attempt 1" if script is die else "a reason")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_running_job_shows_what_it_makes_and_its_log(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LOG_INTERVAL_S", 0.01)
    log = storage.root / job.id / "logs" / "1.txt"

    async def log_and_wait(request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        yield RequestParsed("lipsync", ("wav2lip.mp4",))
        (request.folder / LOG_NAME).write_text("a line\n")
        await until(lambda: log.exists() and log.read_text() == "a line\n")
        found = database.find(job.id)
        assert (found.task, [one.state for one in found.outputs]) == ("lipsync", [JobState.PROCESSING])
        yield Failed(Failure(507, "out_of_memory", "a reason"), 800.0, 900.0)

    asyncio.run(make_runner(database, storage, ScriptedPool(log_and_wait)).run_next())
    (attempt,) = database.find(job.id).attempts
    assert (attempt.outcome, attempt.ram_peak_mib, attempt.vram_peak_mib) == (AttemptOutcome.FAILED, 800.0, 900.0)
    assert log.read_text() == "a line\n"


def test_an_input_that_is_gone_fails_the_job(database: JobDatabase, storage: FolderStorage, job: JobRecord) -> None:
    storage.delete(job.id)
    asyncio.run(make_runner(database, storage, ScriptedPool(succeed)).run_next())
    error = database.find(job.id).error
    assert error is not None
    assert error.code == "object_not_found"


def test_a_canceled_job_ends_its_work(database: JobDatabase, storage: FolderStorage, job: JobRecord) -> None:
    pool = ScriptedPool(hang)

    async def go() -> None:
        running = asyncio.create_task(make_runner(database, storage, pool).run_next())
        await until(lambda: database.find(job.id).progress == 10)
        database.repository.cancel(job.id)
        assert await running

    asyncio.run(go())
    assert pool.n_canceled == 1
    assert database.find(job.id).state is JobState.CANCELED


def test_a_runner_that_lost_its_lease_publishes_nothing(
    database: JobDatabase, storage: FolderStorage, job: JobRecord
) -> None:
    """As after SIGSTOP: its work goes on after the lease has been given to another worker."""

    async def succeed_late(request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        database.clock.now += LEASE_S
        database.queue.free_expired_leases()
        other = database.claim("worker-b")
        database.queue.start(other)
        async for message in succeed(request):
            if not isinstance(message, Progress | WordsRead):
                yield message

    asyncio.run(make_runner(database, storage, ScriptedPool(succeed_late)).run_next())
    job = database.find(job.id)
    assert (job.state, job.attempt, job.result) == (JobState.PROCESSING, 2, None)
    assert [one.state for one in job.outputs] == []
    assert attempt_files(storage, job) == []


def test_a_runner_that_is_stopped_gives_its_job_back(
    database: JobDatabase, storage: FolderStorage, job: JobRecord
) -> None:
    pool = ScriptedPool(hang)

    async def go() -> None:
        running = asyncio.create_task(make_runner(database, storage, pool).run_next())
        await until(lambda: database.find(job.id).progress == 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(go())
    assert pool.n_canceled == 1
    found = database.find(job.id)
    assert (found.state, found.attempt) == (JobState.QUEUED, 1)
    assert database.queue.has_ready()


def test_a_database_that_is_gone_for_a_while_loses_nothing(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"report_progress": 1, "record_output": 2, "publish": 3}
    for name in ("report_progress", "record_output", "publish"):
        real = getattr(database.queue, name)

        def flaky(*args: object, name: str = name, real: Callable[..., object] = real) -> object:
            if left[name]:
                left[name] -= 1
                raise StorageError("the jobs database failed (server closed the connection)")
            return real(*args)

        monkeypatch.setattr(database.queue, name, flaky)
    assert asyncio.run(make_runner(database, storage, ScriptedPool(succeed)).run_next())
    assert database.find(job.id).state is JobState.SUCCEEDED
    assert set(left.values()) == {0}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_lease_is_renewed_while_the_job_runs(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours by the clock, with no second run."""
    end, renewed_at, renew = database.clock.now + 7200, 0.0, database.queue.renew

    def record_renewal(lease: Lease) -> None:
        nonlocal renewed_at
        began_at = database.clock.now  # the clock may be moved while it is on its way
        renew(lease)
        renewed_at = began_at

    monkeypatch.setattr(database.queue, "renew", record_renewal)
    monkeypatch.setattr(runner_module, "RENEWAL_S", 0.005)

    async def work_for_two_hours(request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        while database.clock.now < end:
            database.clock.now += LEASE_S - 5
            await until(lambda: renewed_at == database.clock.now)
            assert database.queue.free_expired_leases() == []
        async for message in succeed(request):
            yield message

    step: Awaitable[bool] = make_runner(database, storage, ScriptedPool(work_for_two_hours)).run_next()

    async def go() -> None:
        async with asyncio.timeout(600):
            await step

    asyncio.run(go())
    done = database.find(job.id)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)


def test_a_renewal_that_comes_while_the_job_is_published_costs_nothing(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is done, and its answer on the way: the renewal finds that the job is no longer leased."""
    is_committed, is_lost = threading.Event(), threading.Event()
    publish, renew = database.queue.publish, database.queue.renew

    def publish_slowly(*args: Any) -> None:
        publish(*args)
        is_committed.set()
        assert is_lost.wait(30)

    def renew_after_commit(lease: Lease) -> None:
        if is_committed.is_set():
            try:
                renew(lease)
            finally:
                threading.Timer(0.2, is_lost.set).start()

    monkeypatch.setattr(database.queue, "publish", publish_slowly)
    monkeypatch.setattr(database.queue, "renew", renew_after_commit)
    asyncio.run(make_runner(database, storage, ScriptedPool(succeed)).run_next())
    assert database.find(job.id).state is JobState.SUCCEEDED
    assert attempt_files(storage, job) == ["1/wav2lip.mp4"]


@pytest.mark.parametrize("refused", ["shutil.copyfile", "locked_folder"])
def test_a_full_disk_is_tried_again(
    database: JobDatabase, storage: FolderStorage, job: JobRecord, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(f"container.jobs.runner.{refused}", refuse)
        asyncio.run(make_runner(database, storage, ScriptedPool(succeed)).run_next())
    found = database.find(job.id)
    assert found.state is JobState.QUEUED
    (attempt,) = found.attempts
    assert attempt.error is not None
    assert attempt.error.code == "overloaded"
