"""The pool of workers, with processes that hold no model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_worker import run_fake

from container import pool as pool_module
from container.pool import Pool
from container.worker_main import Job
from inference.errors import DeadlineExceeded, NotReady, Overloaded, WorkerDied

PATIENCE_S = 60.0  # only a guard against hanging


@pytest.fixture(autouse=True)
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "run_worker", run_fake)


def job(route: str) -> Job:
    return Job(route, {}, Path("/dev/null"), "id")


async def collect(pool: Pool, route: str, seconds: float = PATIENCE_S) -> list[tuple]:
    async with pool.admit():
        return [message async for message in pool.run(job(route), time.monotonic() + seconds)]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def start_job(pool: Pool, route: str) -> asyncio.Task[list[tuple]]:
    """A request that the pool's only worker has been given."""
    task = asyncio.create_task(collect(pool, route))
    await until(lambda: pool.n_held > 0 and pool._idle.empty())
    return task


def with_pool(check, n_workers: int = 1, queue_size: int = 4):
    async def run():
        pool = Pool(n_workers, queue_size, None)
        await pool.start()
        try:
            await check(pool)
        finally:
            await pool.stop()

    asyncio.run(run())


def test_one_worker_that_cannot_load_ends_them_all(tmp_path: Path):
    (tmp_path / "model").touch()
    pool = Pool(2, 4, str(tmp_path / "model"))
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
            assert [m[1] for m in messages[:-1]] == [f"parts{name}{i}".encode() for i in range(3)]
            assert messages[-1][1] == f"parts{name}".encode()

    with_pool(check)


def test_more_than_fit_are_refused():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        waiting = asyncio.create_task(collect(pool, "quick"))
        await until(lambda: pool.n_held == 2)
        with pytest.raises(Overloaded):
            await collect(pool, "quick")
        running.cancel()
        assert (await waiting)[-1][1] == b"quick"
        assert pool.n_held == 0

    with_pool(check, queue_size=1)


def test_a_dead_worker_costs_the_running_request_alone():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        queued = [asyncio.create_task(collect(pool, f"quick{i}")) for i in range(3)]
        await until(lambda: pool.n_held == 4)
        pool._workers[0].process.kill()
        with pytest.raises(WorkerDied):
            await running
        assert [messages[-1][1] for messages in await asyncio.gather(*queued)] == [b"quick0", b"quick1", b"quick2"]
        assert pool.n_restarts == 1

    with_pool(check)


def test_a_stream_left_lying_gets_no_words_of_the_next_request():
    async def check(pool: Pool):
        stale = pool.run(job("partsold"), time.monotonic() + PATIENCE_S)
        assert (await anext(stale))[1] == b"partsold0"
        pool._workers[0].process.kill()
        await until(lambda: pool.n_restarts == 1 and pool.is_ready)
        fresh = pool.run(job("partsnew"), time.monotonic() + PATIENCE_S)
        assert (await anext(fresh))[1] == b"partsnew0"
        with pytest.raises(WorkerDied):
            await anext(stale)
        assert [message[1] async for message in fresh] == [b"partsnew1", b"partsnew2", b"partsnew"]

    with_pool(check)


def test_a_worker_that_died_idle_is_replaced_unseen():
    async def check(pool: Pool):
        pool._workers[0].process.kill()
        await until(lambda: not pool._workers[0].is_alive)
        assert (await collect(pool, "quick"))[-1][1] == b"quick"

    with_pool(check)


def test_a_deadline_frees_the_worker():
    async def check(pool: Pool):
        with pytest.raises(DeadlineExceeded):
            await collect(pool, "sleep", 0.3)
        assert (await collect(pool, "quick"))[-1][1] == b"quick"
        assert pool.n_restarts == 0

    with_pool(check)


def test_giving_up_answers_those_that_wait():
    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        queued = asyncio.create_task(collect(pool, "quick"))
        await until(lambda: pool.n_held == 2)
        pool.abort()
        with pytest.raises(NotReady):
            await queued
        with pytest.raises(WorkerDied):
            await running

    with_pool(check)


def test_a_worker_that_is_stopped_is_ended_when_it_is_given_up():
    """SIGSTOP: it heeds no word and no signal but SIGKILL."""

    async def check(pool: Pool):
        running = await start_job(pool, "sleep")
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
        pool.abort()
        with pytest.raises(WorkerDied):
            await running

    with_pool(check)


def test_an_idle_worker_that_is_stopped_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "STOP_S", 0.2)

    async def check(pool: Pool):
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)

    with_pool(check)
