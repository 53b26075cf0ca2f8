"""The pool of workers, with processes that hold no model."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from container import pool as pool_module
from container.pool import Pool
from container.worker_main import Job
from inference.errors import DeadlineExceeded, NotReady, Overloaded, WorkerDied


def run_fake(pipe, canceled, model_dir) -> None:
    """A worker that does what the job's route says."""
    pipe.send(("ready", {"inference_ready": True}))
    while True:
        kind, *rest = pipe.recv()
        if kind == "stop":
            return
        route = rest[0].route
        if route.startswith("parts"):
            for i in range(3):
                pipe.send(("part", f"{route}{i}".encode()))
        if route == "sleep":
            for _ in range(100):
                time.sleep(0.05)
                if canceled.is_set():
                    break
        pipe.send(("done", route.encode(), "text/plain"))


@pytest.fixture(autouse=True)
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "run_worker", run_fake)
    monkeypatch.setattr(pool_module, "SPAWN", pool_module.multiprocessing.get_context("fork"))


def job(route: str) -> Job:
    return Job(route, {}, Path("/dev/null"), "id")


async def collect(pool: Pool, route: str, seconds: float = 10.0) -> list[tuple]:
    async with pool.admit():
        return [message async for message in pool.run(job(route), time.monotonic() + seconds)]


def with_pool(check, n_workers: int = 1, queue_size: int = 4):
    async def run():
        pool = Pool(n_workers, queue_size, None)
        await pool.start()
        try:
            await check(pool)
        finally:
            await pool.stop()

    asyncio.run(run())


async def until_ready(pool: Pool) -> None:
    async with asyncio.timeout(20):
        while not pool.is_ready:
            await asyncio.sleep(0.02)


def test_each_request_gets_its_own_messages():
    async def check(pool: Pool):
        answers = await asyncio.gather(*(collect(pool, f"parts{i}") for i in "abc"))
        for name, messages in zip("abc", answers, strict=True):
            assert [m[1] for m in messages[:-1]] == [f"parts{name}{i}".encode() for i in range(3)]
            assert messages[-1][1] == f"parts{name}".encode()

    with_pool(check)


def test_more_than_fit_are_refused():
    async def check(pool: Pool):
        waiting = [asyncio.create_task(collect(pool, "sleep", 1.0)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded):
            await collect(pool, "quick")
        await asyncio.gather(*waiting, return_exceptions=True)
        assert pool.n_held == 0

    with_pool(check, queue_size=1)


def test_a_dead_worker_costs_the_running_request_alone():
    async def check(pool: Pool):
        running = asyncio.create_task(collect(pool, "sleep"))
        await asyncio.sleep(0.2)
        queued = [asyncio.create_task(collect(pool, f"quick{i}", 20)) for i in range(3)]
        await asyncio.sleep(0.05)
        pool._workers[0].process.kill()
        with pytest.raises(WorkerDied):
            await running
        assert [messages[-1][1] for messages in await asyncio.gather(*queued)] == [b"quick0", b"quick1", b"quick2"]
        assert pool.n_restarts == 1

    with_pool(check)


def test_a_stream_left_lying_gets_no_words_of_the_next_request():
    async def check(pool: Pool):
        stale = pool.run(job("partsold"), time.monotonic() + 20)
        assert (await anext(stale))[1] == b"partsold0"
        pool._workers[0].process.kill()
        await asyncio.sleep(0.2)
        await until_ready(pool)
        fresh = pool.run(job("partsnew"), time.monotonic() + 20)
        assert (await anext(fresh))[1] == b"partsnew0"
        with pytest.raises(WorkerDied):
            await anext(stale)
        assert [message[1] async for message in fresh] == [b"partsnew1", b"partsnew2", b"partsnew"]

    with_pool(check)


def test_a_worker_that_died_idle_is_replaced_unseen():
    async def check(pool: Pool):
        pool._workers[0].process.kill()
        await asyncio.sleep(0.05)
        assert (await collect(pool, "quick", 20))[-1][1] == b"quick"

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
        running = asyncio.create_task(collect(pool, "sleep"))
        await asyncio.sleep(0.2)
        queued = asyncio.create_task(collect(pool, "quick"))
        await asyncio.sleep(0.05)
        pool.abort()
        with pytest.raises(NotReady):
            await queued
        with pytest.raises(WorkerDied):
            await running

    with_pool(check)
