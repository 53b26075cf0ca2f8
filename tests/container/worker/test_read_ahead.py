from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from container.worker import read_ahead
from container.worker.messages import AnswerMessage, Done, Part
from container.worker.read_ahead import ReadAhead
from inference.errors import DeadlineExceeded, WorkerDied

PATIENCE_S = 60.0  # only a guard against hanging
LAST = Done(b"end", "text/plain")


async def worker_messages(*messages: AnswerMessage, error: Exception | None = None) -> AsyncGenerator[AnswerMessage]:
    for message in messages:
        yield message
    if error:
        raise error


def start(messages: AsyncGenerator[AnswerMessage]) -> tuple[ReadAhead, asyncio.Event]:
    """Return the messages after a first part, and an event that is set when their place is released."""
    place, released = contextlib.AsyncExitStack(), asyncio.Event()
    place.callback(released.set)
    return ReadAhead(Part(b"first"), messages, place), released


def test_the_place_is_released_before_anything_is_read():
    async def check():
        parts, released = start(worker_messages(Part(b"second"), LAST))
        await asyncio.wait_for(released.wait(), PATIENCE_S)
        assert [message async for message in parts] == [Part(b"first"), Part(b"second"), LAST]
        await parts.aclose()

    asyncio.run(check())


def test_an_error_comes_after_the_messages_before_it():
    async def check():
        parts, _ = start(worker_messages(Part(b"second"), error=WorkerDied("gone")))
        assert [await anext(parts), await anext(parts)] == [Part(b"first"), Part(b"second")]
        with pytest.raises(WorkerDied, match="gone"):
            await anext(parts)

    asyncio.run(check())


def test_a_worker_waits_for_a_caller_who_makes_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 10)

    async def check():
        sent = [Part(bytes(6)) for _ in range(5)]
        parts, released = start(worker_messages(*sent, LAST))
        await asyncio.sleep(0.05)
        assert parts._n_bytes <= 10
        assert not released.is_set()
        assert [message async for message in parts] == [Part(b"first"), *sent, LAST]
        assert released.is_set()

    asyncio.run(check())


def test_a_message_over_the_limit_is_passed_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 10)

    async def check():
        parts, _ = start(worker_messages(Part(bytes(50)), LAST))
        assert [message async for message in parts] == [Part(b"first"), Part(bytes(50)), LAST]

    asyncio.run(check())


def test_a_caller_who_makes_no_room_loses_the_job(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 10)
    monkeypatch.setattr(read_ahead, "READ_AHEAD_TIMEOUT_S", 0.1)

    async def check():
        parts, released = start(worker_messages(Part(bytes(9)), LAST))
        await asyncio.wait_for(released.wait(), PATIENCE_S)
        assert await anext(parts) == Part(b"first")
        with pytest.raises(DeadlineExceeded, match=r"not read for 0\.1 s while 5 bytes"):
            await anext(parts)

    asyncio.run(check())


def test_closing_cancels_the_job_and_releases_its_place():
    async def endless() -> AsyncGenerator[AnswerMessage]:
        await asyncio.sleep(PATIENCE_S)
        yield LAST

    async def check():
        parts, released = start(endless())
        await asyncio.sleep(0)
        await parts.aclose()
        assert released.is_set()

    asyncio.run(check())


def test_closing_before_the_first_step_releases_the_place():
    async def check():
        parts, released = start(worker_messages(LAST))
        await parts.aclose()
        assert released.is_set()

    asyncio.run(check())
