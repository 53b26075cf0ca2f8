from __future__ import annotations

import asyncio

import pytest

from container.http.answers import AnswerQuota

PATIENCE_S = 60.0  # only a guard against hanging


async def send_until(quota: AnswerQuota, finished: asyncio.Event, taken: asyncio.Event | None = None) -> None:
    """Send an answer that ends with an event. taken: its caller takes a message after this event."""

    async def send(_message: object) -> None:
        assert taken is not None
        await taken.wait()

    async with asyncio.timeout(PATIENCE_S) as timeout:
        with quota.sending(timeout) as answer:
            if taken is not None:
                await answer.observe(send)({"type": "http.response.body"})
            await finished.wait()


async def start(quota: AnswerQuota, *args: asyncio.Event) -> asyncio.Task[None]:
    task = asyncio.create_task(send_until(quota, *args))
    await asyncio.sleep(0.01)  # the clock of the next answer is a later one
    return task


def test_answers_are_counted_while_they_are_sent():
    async def check():
        quota, finished = AnswerQuota(2), asyncio.Event()
        tasks = [await start(quota, finished) for _ in range(2)]
        assert quota.n_sending == 2
        finished.set()
        await asyncio.gather(*tasks)
        assert quota.n_sending == 0

    asyncio.run(check())


def test_one_too_many_aborts_the_one_whose_caller_took_nothing_for_longest():
    async def check():
        quota, finished, taken, never = AnswerQuota(3), asyncio.Event(), asyncio.Event(), asyncio.Event()
        reading = await start(quota, finished, taken)  # the oldest, but its caller reads
        unread = await start(quota, finished, never)
        unread_later = await start(quota, finished, never)
        taken.set()
        await asyncio.sleep(0.01)
        fourth = await start(quota, finished)
        with pytest.raises(TimeoutError):
            await unread
        assert quota.n_sending == 3
        assert not unread_later.done()
        never.set()
        finished.set()
        await asyncio.gather(reading, unread_later, fourth)

    asyncio.run(check())


def test_an_answer_that_waits_for_its_worker_is_not_aborted():
    async def check():
        quota, finished, never = AnswerQuota(2), asyncio.Event(), asyncio.Event()
        waiting = await start(quota, finished)  # the oldest, and nothing to send yet
        unread = await start(quota, finished, never)
        third = await start(quota, finished)
        with pytest.raises(TimeoutError):
            await unread
        fourth = await start(quota, finished)  # no other answer is stalled: it is sent beside them
        assert quota.n_sending == 3
        finished.set()
        await asyncio.gather(waiting, third, fourth)

    asyncio.run(check())
