"""The pool of workers, with processes that hold no model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fake_worker import run_fake

from container.worker import pool as pool_module
from container.worker import process as process_module
from container.worker.messages import AnswerMessage, Done, Part, WorkerRequest
from container.worker.placement import Placement
from container.worker.pool import Pool
from inference.errors import DeadlineExceeded, NotReady, Overloaded, WorkerDied

PATIENCE_S = 60.0  # only a guard against hanging


@pytest.fixture(autouse=True)
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "run_worker", run_fake)


def make_request(route: str, seconds: float = PATIENCE_S) -> WorkerRequest:
    return WorkerRequest(route, {}, Path("/dev/null"), "id", deadline=time.monotonic() + seconds)


def done(text: str) -> Done:
    """Return the answer of a fake worker to a request of that route."""
    return Done(text.encode(), "text/plain")


async def collect(pool: Pool, route: str, seconds: float = PATIENCE_S) -> list[AnswerMessage]:
    async with pool.admit():
        return [message async for message in pool.run(make_request(route, seconds))]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def start_job(pool: Pool, route: str) -> asyncio.Task[list[AnswerMessage]]:
    """Start a request, and wait until the pool's only worker runs it."""
    task = asyncio.create_task(collect(pool, route))
    await until(lambda: pool.n_in_flight > 0 and pool._idle.empty())
    return task


def with_pool(check, n_workers: int = 1, queue_size: int = 4, n_lanes: int = 1):
    async def run():
        pool = Pool([Placement(n_lanes)] * n_workers, queue_size, None)
        await pool.start()
        try:
            await check(pool)
        finally:
            await pool.stop()

    asyncio.run(run())


def test_a_worker_is_replaced_after_its_last_request():
    async def run():
        pool = Pool([Placement()], 4, None, max_requests=2)
        await pool.start()
        pids = []
        for route in ("one", "two", "three"):
            pids.append(pool._workers[0].process.pid)
            assert await collect(pool, route) == [done(route)]
            if route == "two":
                await until(lambda: pool._workers[0].generation == 2 and pool.is_ready)
        assert pids[0] == pids[1] != pids[2]
        assert pool.n_restarts == 1
        await pool.stop()

    asyncio.run(run())


def test_one_worker_that_cannot_load_ends_them_all(tmp_path: Path):
    (tmp_path / "model").touch()
    pool = Pool([Placement()] * 2, 4, str(tmp_path / "model"))
    with pytest.raises(NotReady, match="could not be loaded: out of memory"):
        asyncio.run(pool.start())
    for worker in pool._workers:
        worker.process.join(PATIENCE_S)
        assert not worker.is_alive
    assert not pool.is_ready


def test_each_request_gets_its_own_messages():
    async def check(pool: Pool):
        answers = await asyncio.gather(*(collect(pool, f"parts{i}") for i in "abc"))
        for name, messages in zip("abc", answers, strict=True):
            parts = [Part(f"parts{name}{i}".encode()) for i in range(3)]
            assert messages == [*parts, done(f"parts{name}")]

    with_pool(check)


def test_requests_over_the_capacity_are_rejected():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        waiting = asyncio.create_task(collect(pool, "quick"))
        await until(lambda: pool.n_in_flight == 2)
        with pytest.raises(Overloaded):
            await collect(pool, "quick")
        running.cancel()
        assert await waiting == [done("quick")]
        assert pool.n_in_flight == 0

    with_pool(check, queue_size=1)


def test_a_dead_worker_fails_only_the_running_request():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        queued = [asyncio.create_task(collect(pool, f"quick{i}")) for i in range(3)]
        await until(lambda: pool.n_in_flight == 4)
        pool._workers[0].process.kill()
        with pytest.raises(WorkerDied):
            await running
        assert await asyncio.gather(*queued) == [[done(f"quick{i}")] for i in range(3)]
        assert pool.n_restarts == 1

    with_pool(check)


def test_an_abandoned_stream_gets_no_messages_of_the_next_request():
    async def check(pool: Pool):
        stale = pool.run(make_request("partsold"))
        assert await anext(stale) == Part(b"partsold0")
        pool._workers[0].process.kill()
        await until(lambda: pool.n_restarts == 1 and pool.is_ready)
        fresh = pool.run(make_request("partsnew"))
        assert await anext(fresh) == Part(b"partsnew0")
        with pytest.raises(WorkerDied):
            await anext(stale)
        rest = [message async for message in fresh]
        assert rest == [Part(b"partsnew1"), Part(b"partsnew2"), done("partsnew")]

    with_pool(check)


def test_a_worker_that_died_idle_is_replaced_without_an_error():
    async def check(pool: Pool):
        pool._workers[0].process.kill()
        await until(lambda: not pool._workers[0].is_alive)
        assert await collect(pool, "quick") == [done("quick")]

    with_pool(check)


def test_a_deadline_frees_the_worker():
    async def check(pool: Pool):
        with pytest.raises(DeadlineExceeded):
            await collect(pool, "sleep", 0.3)
        assert await collect(pool, "quick") == [done("quick")]
        assert pool.n_restarts == 0

    with_pool(check)


def test_abort_fails_waiting_requests():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        queued = asyncio.create_task(collect(pool, "quick"))
        await until(lambda: pool.n_in_flight == 2)
        pool.abort()
        with pytest.raises(NotReady):
            await queued
        with pytest.raises(WorkerDied):
            await running

    with_pool(check)


def test_abort_ends_a_suspended_worker():
    """A process suspended by SIGSTOP reacts to SIGKILL only."""

    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
        pool.abort()
        with pytest.raises(WorkerDied):
            await running

    with_pool(check)


def test_a_suspended_idle_worker_does_not_block_stop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_module, "STOP_TIMEOUT_S", 0.2)

    async def check(pool: Pool):
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)

    with_pool(check)


def test_a_worker_runs_as_many_requests_at_a_time_as_it_has_lanes():
    async def check(pool: Pool):
        running = [asyncio.create_task(collect(pool, "sleep")) for _ in range(3)]
        await until(lambda: sum(lane.is_running for lane in pool._workers[0].lanes) == 3)
        waiting = asyncio.create_task(collect(pool, "quick"))
        await until(lambda: pool.n_in_flight == 4)
        running[1].cancel()
        assert await waiting == [done("quick")]
        assert not any(task.done() for task in (running[0], running[2]))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert pool.n_restarts == 0

    with_pool(check, n_lanes=3)


def test_a_deadline_or_a_hang_of_one_request_leaves_the_others_running(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "CANCEL_TIMEOUT_S", 0.2)

    async def check(pool: Pool):
        (worker,) = pool._workers
        other = asyncio.create_task(collect(pool, "longer"))
        await until(lambda: worker.lanes[0].is_running)
        with pytest.raises(DeadlineExceeded):
            await collect(pool, "hang", 0.1)
        assert worker.is_retired
        assert worker.is_alive
        assert pool.is_ready
        assert await other == [done("longer")]
        await until(lambda: pool.n_restarts == 1 and worker.accepts_jobs)
        answers = await asyncio.gather(*(collect(pool, f"quick{i}") for i in range(3)))
        assert answers == [[done(f"quick{i}")] for i in range(3)]

    with_pool(check, n_lanes=2)


def test_a_dead_worker_fails_the_requests_of_all_its_lanes_and_no_others():
    async def check(pool: Pool):
        running = [asyncio.create_task(collect(pool, "sleep")) for _ in range(4)]
        await until(lambda: all(lane.is_running for worker in pool._workers for lane in worker.lanes))
        pool._workers[0].process.kill()
        await until(lambda: sum(task.done() for task in running) == 2)
        for task in (task for task in running if task.done()):
            with pytest.raises(WorkerDied):
                task.result()
        await until(lambda: pool.n_restarts == 1 and pool._workers[0].accepts_jobs)
        assert await collect(pool, "quick") == [done("quick")]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    with_pool(check, n_workers=2, n_lanes=2)


def test_a_successor_keeps_the_place_of_its_worker():
    places = [Placement(environment={"CUDA_VISIBLE_DEVICES": str(i)}) for i in range(2)]

    async def check() -> None:
        pool = Pool(places, 4, None)
        await pool.start()
        try:
            pool._workers[1].process.kill()
            await until(lambda: pool.n_restarts == 1 and all(worker.accepts_jobs for worker in pool._workers))
            held = asyncio.create_task(collect(pool, "sleep"))
            await until(lambda: pool._workers[0].lanes[0].is_running)
            (answer,) = await collect(pool, "environment")
            assert json.loads(answer.body)["CUDA_VISIBLE_DEVICES"] == "1"
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
        finally:
            await pool.stop()

    asyncio.run(check())
