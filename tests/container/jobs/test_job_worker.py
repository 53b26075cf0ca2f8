"""`viseme worker`, over a real Redis and PostgreSQL, with workers that believe to be on different machines."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from support.certificates import make_pair
from support.postgresql import empty_tables

from bench.backing_servers import RedisServer, ServerMissing, redis_server
from bench.job_child import OUTPUT, make_input, make_output
from bench.job_processes import JobMachines, JobProcess, Times
from container.cli import main
from container.jobs.broker import WakeSender, make_celery_app, receive_wakes, stop_receiving
from container.jobs.database import open_database
from container.jobs.records import AttemptOutcome, JobRecord, JobState, NewJob
from container.jobs.service import JobService, JobStore
from inference.errors import StorageError

PATIENCE_S = 120.0  # only a guard against hanging
NEVER_S = 3600.0
QUICK = Times(lease_s=3.0, poll_s=0.5, grace_s=0.3)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    try:
        with redis_server() as server:
            yield server
    except ServerMissing as err:
        pytest.skip(str(err))


@pytest.fixture
def machines(tmp_path: Path, redis: RedisServer, postgresql_url: str) -> Iterator[JobMachines]:
    yield JobMachines(tmp_path, postgresql_url, redis.url, QUICK)
    engine = open_database(postgresql_url, tmp_path)
    with engine.begin() as connection:
        empty_tables(connection)
    engine.dispose()


@contextmanager
def running(*workers: JobProcess) -> Iterator[None]:
    """Wait until the workers are ready; kill them after the block."""
    try:
        until(lambda: all(worker.is_ready or worker.exit_code is not None for worker in workers))
        for worker in workers:
            assert worker.exit_code is None, worker.log
        yield
    finally:
        for worker in workers:
            worker.kill_all()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Client:
    """Submits jobs to a server without runners of its own, and finds what became of them."""

    def __init__(self, service: JobService, store: JobStore, folder: Path) -> None:
        self._service, self._store, self._folder = service, store, folder

    async def submit(self, seed: int, seconds: float) -> str:
        body = self._folder / "body"
        body.write_bytes(make_input(seed, seconds))
        job = NewJob(f"{seed:032x}", "owner", "client", "invocations", {}, f"{seed:064x}", body.stat().st_size)
        return (await self._service.submit(job, body)).job.id

    async def find(self, job_id: str) -> JobRecord:
        return await asyncio.to_thread(self._store.repository.find, job_id)

    async def until_state(self, job_id: str, *states: JobState) -> JobRecord:
        return await self.until(job_id, lambda job: job.state in states)

    async def until(self, job_id: str, is_so: Callable[[JobRecord], bool]) -> JobRecord:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(job := await self.find(job_id)):
                await asyncio.sleep(0.05)
        return job

    async def cancel(self, job_id: str) -> None:
        await asyncio.to_thread(self._store.repository.cancel, job_id)

    def check(self, job: JobRecord, seed: int, seconds: float) -> None:
        """Check that a job has ended once, with the right bytes."""
        assert job.state is JobState.SUCCEEDED, job.error
        assert [one.outcome for one in job.attempts].count(AttemptOutcome.SUCCEEDED) == 1
        (output,) = job.outputs
        assert (output.name, output.key) == (OUTPUT, f"attempts/{job.attempt}/{OUTPUT}")
        assert output.key is not None
        with self._store.storage.read(job.id, output.key) as path:
            assert path.read_bytes() == make_output(make_input(seed, seconds))


def serve(machines: JobMachines, act: Callable[[Client], Awaitable[None]]) -> None:
    """Run a server beside the workers, while something is done with its jobs."""

    async def go() -> None:
        service = JobService(machines.settings())
        try:
            await act(Client(service, await service.open(), machines.root))
            assert service.n_running == 0
        finally:
            await service.stop()

    asyncio.run(go())


def test_jobs_are_shared_by_machines_and_each_ends_once(machines: JobMachines, redis: RedisServer) -> None:
    workers = [machines.start_worker(name) for name in ("machine-a", "machine-a", "machine-b")]
    seconds = 0.4

    async def act(client: Client) -> None:
        ids = [await client.submit(seed, seconds) for seed in range(12)]
        long = await client.submit(100, NEVER_S)
        await client.until_state(ids[3], JobState.SUCCEEDED)
        redis.flush()
        redis.stop()
        ids += [await client.submit(seed, seconds) for seed in range(12, 16)]
        redis.start()
        for seed, job_id in enumerate(ids):
            client.check(await client.until_state(job_id, JobState.SUCCEEDED, JobState.FAILED), seed, seconds)
        names = {one.worker for job_id in ids for one in (await client.find(job_id)).attempts}
        assert len(names) >= 2
        assert (await client.until_state(long, JobState.PROCESSING)).attempt == 1

    with running(*workers):
        serve(machines, act)


def test_a_job_survives_its_workers(machines: JobMachines) -> None:
    """One is killed on the same machine, one on another, whose lease has to expire, and one is stopped by SIGTERM."""
    workers: list[JobProcess] = []

    async def act(client: Client) -> None:
        job_id = await client.submit(1, NEVER_S)
        for attempt, machine in enumerate(("machine-a", "machine-a", "machine-b"), start=1):
            workers.append(machines.start_worker(machine))
            await client.until(job_id, lambda job, n=attempt: (job.attempt, job.state) == (n, JobState.PROCESSING))  # type: ignore[misc]
            if attempt < 3:
                workers[-1].kill()
        workers[-1].terminate()
        assert await asyncio.to_thread(workers[-1].wait, PATIENCE_S) == 0
        job = await client.find(job_id)
        assert (job.state, job.attempt) == (JobState.QUEUED, 3)
        assert [one.outcome for one in job.attempts][:2] == [AttemptOutcome.LOST] * 2

    try:
        serve(machines, act)
    finally:
        for worker in workers:
            worker.kill_all()


def test_a_message_wakes_a_worker(machines: JobMachines, redis: RedisServer) -> None:
    """It polls too rarely to find the job by itself."""
    rare = replace(machines, times=replace(QUICK, poll_s=NEVER_S))

    async def act(client: Client) -> None:
        for seed in range(3):
            client.check(await client.until_state(await client.submit(seed, 0.05), JobState.SUCCEEDED), seed, 0.05)
        redis.flush()
        client.check(await client.until_state(await client.submit(9, 0.05), JobState.SUCCEEDED), 9, 0.05)

    with running(rare.start_worker("machine-a")), Redis.from_url(redis.url) as client:
        until(lambda: client.pubsub_numpat() == 1)  # the subscription of wakes
        serve(machines, act)


def test_without_a_broker_workers_poll(machines: JobMachines, caplog: pytest.LogCaptureFixture) -> None:
    alone = replace(machines, broker_url="redis://127.0.0.1:1/0")

    async def act(client: Client) -> None:
        for seed in range(3):
            client.check(await client.until_state(await client.submit(seed, 0.05), JobState.SUCCEEDED), seed, 0.05)

    with caplog.at_level(logging.WARNING, "viseme.jobs"), running(alone.start_worker("machine-a")):
        serve(alone, act)
    warnings = [one for one in caplog.records if one.message == "the workers cannot be woken"]
    assert len(warnings) == 1  # though three jobs were submitted
    assert "127.0.0.1:1/0 cannot be reached" in warnings[0].reason  # type: ignore[attr-defined]


def test_a_worker_goes_on_after_its_childs_last_job_its_death_and_a_cancelation(machines: JobMachines) -> None:
    async def act(client: Client) -> None:
        pids = []
        for seed in range(3):
            job = await client.until_state(await client.submit(seed, 0.05), JobState.SUCCEEDED)
            assert job.result is not None
            pids.append(job.result["pid"])
        assert pids[0] == pids[1] != pids[2]
        doomed = await client.submit(3, 1.0)
        await client.until_state(doomed, JobState.PROCESSING)
        os.kill(pids[2], signal.SIGKILL)
        job = await client.until_state(doomed, JobState.SUCCEEDED)
        client.check(job, 3, 1.0)
        assert job.attempt == 2
        long = await client.submit(4, NEVER_S)
        await client.until_state(long, JobState.PROCESSING)
        await client.cancel(long)
        client.check(await client.until_state(await client.submit(5, 0.05), JobState.SUCCEEDED), 5, 0.05)
        assert (await client.find(long)).state is JobState.CANCELED

    with running(machines.start_worker("machine-a", max_jobs_per_process="2")):
        serve(machines, act)


def test_a_worker_without_its_models_exits(machines: JobMachines, tmp_path: Path) -> None:
    worker = replace(machines, is_real=True).start_worker("machine-a", weights=str(tmp_path / "missing.pt"))
    assert worker.wait(PATIENCE_S) == 1
    assert "the models could not be loaded" in worker.log


def test_a_broker_is_called_over_tls(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    files = ("--tls-cert-file", str(pair.cert), "--tls-key-file", str(pair.key), "--tls-ca-cert-file", str(pair.cert))
    options = ("--port", "0", "--tls-port", "{port}", *files, "--tls-auth-clients", "no")
    url = f"rediss://localhost:{{port}}/0?ssl_ca_certs={pair.cert}"
    try:
        server = RedisServer(tmp_path, options, url)
    except ServerMissing as err:
        pytest.skip(str(err))
    woken = threading.Event()
    receiver = threading.Thread(target=receive_wakes, args=(server.url, woken.set))
    receiver.start()
    try:
        sender = WakeSender(server.url)
        until(lambda: sender.send() is None and woken.wait(0.2))
        with pytest.raises(StorageError, match="certificate verify failed"):
            WakeSender(server.url.partition("?")[0].replace("localhost", "127.0.0.1")).send()  # Celery pools by host
    finally:
        stop_receiving()
        receiver.join(PATIENCE_S)
        server.stop()
    assert not receiver.is_alive()


def test_the_broker_of_another_app_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery itself prefers the variable to what it is given."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://other:1/3")
    app = make_celery_app("redis://127.0.0.1:1/0")
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert connection.hostname == "127.0.0.1"


def test_celery_that_is_missing_is_named() -> None:
    hidden = "import sys; sys.modules['celery'] = None; from container.cli import main; sys.exit(main(['worker']))"
    run = subprocess.run(
        [sys.executable, "-c", hidden],
        capture_output=True,
        text=True,
        env={"VISEME_BROKER_URL": "redis://127.0.0.1:1"},
        check=False,
    )
    assert (run.returncode, run.stderr) == (
        2,
        "viseme: VISEME_BROKER_URL: Celery is not installed; install viseme[celery]\n",
    )


def test_a_worker_needs_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker"]) == 2
    assert "a worker needs a broker: --broker redis://HOST, or VISEME_BROKER_URL" in capsys.readouterr().err
