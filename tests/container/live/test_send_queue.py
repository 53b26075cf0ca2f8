from __future__ import annotations

import asyncio
import json

import pytest

from container.live.frame_messages import PATCH, FrameMessage
from container.live.send_queue import MAX_QUEUED_MESSAGES, MAX_QUEUED_PCM_BYTES, SendQueue, SlowClient


def frame(number: int, generation: int = 0, pcm: bytes | None = None) -> FrameMessage:
    sound = bytes([number, 0]) if pcm is None else pcm
    return FrameMessage(PATCH, True, generation, number, number * 40, 0, 0, 8, 8, b"jpeg", sound)


def test_a_frame_that_was_not_sent_leaves_its_sound_to_the_next():
    queue = SendQueue()
    for i in range(1, 4):
        queue.push_frame(frame(i))
    taken = queue.pop()
    assert isinstance(taken, FrameMessage)
    assert (taken.frame, taken.pcm, queue.n_dropped) == (3, bytes([1, 0, 2, 0, 3, 0]), 2)
    assert queue.pop() is None


def test_events_and_frames_keep_their_order():
    queue = SendQueue()
    queue.push_frame(frame(1))
    queue.push_event("speech_started", 0, frame=2)
    queue.push_frame(frame(2))
    first, event, second = queue.pop(), queue.pop(), queue.pop()
    assert isinstance(first, FrameMessage)
    assert isinstance(second, FrameMessage)
    assert (first.frame, second.frame) == (1, 2)
    assert json.loads(str(event)) == {"type": "speech_started", "generation": 0, "frame": 2}


def test_an_interrupt_leaves_events_alone():
    queue = SendQueue()
    queue.push_frame(frame(1))
    queue.push_event("stats", 0)
    queue.push_frame(frame(2))
    queue.drop_frames()
    assert queue.n_queued == 1
    assert '"stats"' in str(queue.pop())


def test_sound_of_another_generation_is_not_kept():
    queue = SendQueue()
    queue.push_frame(frame(1, generation=0))
    queue.push_frame(frame(2, generation=1))
    taken = queue.pop()
    assert isinstance(taken, FrameMessage)
    assert taken.pcm == bytes([2, 0])


def test_no_more_than_a_bound_is_kept():
    queue = SendQueue()
    queue.push_frame(frame(1, pcm=bytes(MAX_QUEUED_PCM_BYTES)))
    with pytest.raises(SlowClient, match="bytes of audio are queued"):
        queue.push_frame(frame(2))
    queue = SendQueue()
    for _ in range(MAX_QUEUED_MESSAGES):
        queue.push_event("error", 0)
    with pytest.raises(SlowClient, match="messages are queued"):
        queue.push_event("error", 0)


def test_who_waits_is_told():
    async def go() -> None:
        queue = SendQueue()
        waiting = asyncio.create_task(queue.wait_until_not_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.push_event("ready", 0)
        await waiting

    asyncio.run(go())


def test_who_causes_events_waits_until_they_are_taken():
    async def go() -> None:
        queue = SendQueue()
        for _ in range(MAX_QUEUED_MESSAGES // 2 + 1):
            queue.push_event("error", 0)
        waiting = asyncio.create_task(queue.wait_until_half_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.pop()
        await waiting

    asyncio.run(go())
