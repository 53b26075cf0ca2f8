"""The jobs of one server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.postgresql import empty_tables

from container.jobs import service as service_module
from container.jobs.database import open_database
from container.jobs.records import JobState, NewJob
from container.jobs.service import JobService
from container.worker.messages import AnswerMessage, JobDone, JobOutput, WorkerRequest
from inference.errors import IdempotencyConflict, NotReady
from inference.settings import Settings

PATIENCE_S = 60.0


class ImmediatePool:
    """Answers each request at once, or never."""

    def __init__(self, *, hangs: bool = False, fails_to_start: bool = False) -> None:
        self.hangs, self.fails_to_start = hangs, fails_to_start
        self.is_started = self.is_aborted = False
        self.n_canceled = 0

    async def start(self) -> None:
        if self.fails_to_start:
            self.fails_to_start = False
            raise NotReady("the models could not be loaded")
        self.is_started = True

    def abort(self) -> None:
        self.is_aborted = True

    async def run(self, worker_request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        try:
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.n_canceled += 1
            raise
        path = worker_request.folder / "transcript.txt"
        path.write_bytes(worker_request.body.read_bytes())
        yield JobDone({"status": "success"}, (JobOutput(path.name, path, "text/plain"),), 10.0, None)


def make_job(i: int, **fields: str) -> NewJob:
    return NewJob(f"{i:032x}", "owner", "client", "invocations", {}, f"{i:064x}", 5, **fields)  # type: ignore[arg-type]


def source(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(b"video")
    return path


async def until_ended(service: JobService, job_id: str) -> JobState:
    store = await service.open()
    async with asyncio.timeout(PATIENCE_S):
        while not (state := (await asyncio.to_thread(store.repository.find, job_id)).state).is_final:
            await asyncio.sleep(0.02)
    return state


ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield Settings(data_dir=tmp_path / "data")
        return
    url = request.getfixturevalue("postgresql_url")
    yield Settings(data_dir=tmp_path / "data", database_url=url)
    engine = open_database(url, tmp_path)
    with engine.begin() as connection:
        empty_tables(connection)
    engine.dispose()


@pytest.fixture
def make_service(settings: Settings) -> Callable[[ImmediatePool], JobService]:
    return lambda pool: JobService(settings, lambda: pool)


@ON_SQLITE
def test_nothing_is_opened_before_the_first_job(settings: Settings, make_service: Callable[..., JobService]) -> None:
    pool = ImmediatePool()

    async def go() -> None:
        service = make_service(pool)
        await service.start()
        assert await service.statistics() is None
        await service.stop()

    asyncio.run(go())
    assert not (settings.data_dir / "jobs").exists()
    assert not pool.is_started


def test_a_job_runs_and_its_files_are_kept(tmp_path: Path, make_service: Callable[..., JobService]) -> None:
    async def go() -> None:
        service = make_service(ImmediatePool())
        submission = await service.submit(make_job(1), source(tmp_path))
        assert submission.is_new
        assert await until_ended(service, submission.job.id) is JobState.SUCCEEDED
        store = await service.open()
        with store.storage.read(submission.job.id, "attempts/1/transcript.txt") as path:
            assert path.read_bytes() == b"video"
        found = await service.statistics()
        assert found is not None
        assert (found.n_queued, found.n_running, found.n_attempts) == (0, 0, 1)
        await service.stop()

    asyncio.run(go())


def test_a_repeated_submission_leaves_no_files(tmp_path: Path, make_service: Callable[..., JobService]) -> None:
    async def go() -> None:
        service = make_service(ImmediatePool())
        first = await service.submit(make_job(1, idempotency_key="k"), source(tmp_path))
        same = replace(make_job(1, idempotency_key="k"), id="f" * 32)
        second = await service.submit(same, source(tmp_path))
        assert (second.is_new, second.job.id) == (False, first.job.id)
        with pytest.raises(IdempotencyConflict):
            await service.submit(make_job(3, idempotency_key="k"), source(tmp_path))
        store = await service.open()
        assert {path.name for path in store.storage.root.iterdir()} == {first.job.id}  # type: ignore[attr-defined]
        await service.stop()

    asyncio.run(go())


def test_a_server_continues_what_the_last_one_left(
    tmp_path: Path, settings: Settings, make_service: Callable[..., JobService]
) -> None:
    async def leave() -> None:
        pool = ImmediatePool(hangs=True)
        service = make_service(pool)
        await service.submit(make_job(1), source(tmp_path))
        async with asyncio.timeout(PATIENCE_S):
            while not service.n_running:
                await asyncio.sleep(0.02)
        await service.stop()
        assert pool.is_aborted
        assert service.n_running == 0

    async def continue_it() -> None:
        service = make_service(ImmediatePool())
        await service.start()
        assert await until_ended(service, make_job(1).id) is JobState.SUCCEEDED
        await service.stop()

    asyncio.run(leave())
    asyncio.run(continue_it())


@ON_SQLITE
def test_files_of_another_database_are_not_swept(tmp_path: Path, settings: Settings) -> None:
    """Two deployments may name one storage, and a database may be lost while its files are kept."""

    async def run_one(own: Settings) -> tuple[str, Path]:
        service = JobService(own, ImmediatePool)
        submission = await service.submit(make_job(1), source(tmp_path))
        await until_ended(service, submission.job.id)
        store = await service.open()
        root = store.storage.root  # type: ignore[attr-defined]
        await service.stop()
        return submission.job.id, root

    async def sweep(own: Settings) -> None:
        service = JobService(own, ImmediatePool)
        store = await service.open()
        await asyncio.to_thread(store.sweeper.delete_orphans)
        await service.stop()

    shared = settings.model_copy(update={"job_storage": str(tmp_path / "shared")})
    job_id, root = asyncio.run(run_one(shared))
    os.utime(root / job_id, times=(0, 0))
    asyncio.run(sweep(shared.model_copy(update={"data_dir": tmp_path / "other"})))
    assert (root / job_id / "attempts" / "1" / "transcript.txt").exists()


@ON_SQLITE
def test_a_draining_server_claims_nothing(tmp_path: Path, make_service: Callable[..., JobService]) -> None:
    async def go() -> None:
        pool = ImmediatePool()
        service = make_service(pool)
        await service.open()
        service.drain()
        await service.submit(make_job(1), source(tmp_path))
        await asyncio.sleep(0.3)
        found = await service.statistics()
        assert found is not None
        assert (found.n_queued, pool.is_started) == (1, False)
        await service.stop()

    asyncio.run(go())


@ON_SQLITE
def test_workers_that_could_not_be_started_are_started_again(
    tmp_path: Path, make_service: Callable[..., JobService], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "RESTART_S", 0.05)

    async def go() -> None:
        service = make_service(ImmediatePool(fails_to_start=True))
        submission = await service.submit(make_job(1), source(tmp_path))
        assert await until_ended(service, submission.job.id) is JobState.SUCCEEDED
        await service.stop()

    asyncio.run(go())
