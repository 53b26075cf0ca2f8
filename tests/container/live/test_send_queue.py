from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from container.live.frame_messages import PATCH, FrameMessage
from container.live.send_queue import MAX_QUEUED_MESSAGES, MAX_QUEUED_PCM_BYTES, SendQueue, SlowClient


def frame(number: int, generation: int = 0, pcm: bytes | None = None) -> FrameMessage:
    audio = bytes([number, 0]) if pcm is None else pcm
    return FrameMessage(PATCH, True, generation, number, number * 40, 0, 0, 8, 8, b"jpeg", audio)


def test_a_dropped_frame_passes_its_audio_to_the_next():
    queue = SendQueue()
    for i in range(1, 4):
        queue.push_frame(frame(i))
    popped = queue.pop()
    assert isinstance(popped, FrameMessage)
    assert (popped.frame, popped.pcm, queue.n_dropped) == (3, bytes([1, 0, 2, 0, 3, 0]), 2)
    assert queue.pop() is None


def test_a_dropped_frame_passes_its_visemes_to_a_next_one_without():
    """Else the event that the mouth rests could be lost, which is sent once."""
    queue, rest = SendQueue(), {"viseme": "sil"}
    queue.push_frame(replace(frame(1), visemes={"viseme": "aa"}))
    queue.push_frame(replace(frame(2), visemes=rest))
    queue.push_frame(frame(3))
    popped = queue.pop()
    assert isinstance(popped, FrameMessage)
    assert (popped.frame, popped.visemes) == (3, rest)


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


def test_dropping_frames_keeps_events():
    queue = SendQueue()
    queue.push_frame(frame(1))
    queue.push_event("stats", 0)
    queue.push_frame(frame(2))
    queue.drop_frames()
    assert queue.n_queued == 1
    assert '"stats"' in str(queue.pop())


def test_audio_of_an_older_generation_is_dropped():
    queue = SendQueue()
    queue.push_frame(frame(1, generation=0))
    queue.push_frame(frame(2, generation=1))
    popped = queue.pop()
    assert isinstance(popped, FrameMessage)
    assert popped.pcm == bytes([2, 0])


def test_the_queue_is_bounded():
    queue = SendQueue()
    queue.push_frame(frame(1, pcm=bytes(MAX_QUEUED_PCM_BYTES)))
    with pytest.raises(SlowClient, match="bytes of audio are queued"):
        queue.push_frame(frame(2))
    queue = SendQueue()
    for _ in range(MAX_QUEUED_MESSAGES):
        queue.push_event("error", 0)
    with pytest.raises(SlowClient, match="messages are queued"):
        queue.push_event("error", 0)


def test_a_pushed_event_ends_the_wait_for_messages():
    async def go() -> None:
        queue = SendQueue()
        waiting = asyncio.create_task(queue.wait_until_not_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.push_event("ready", 0)
        await waiting

    asyncio.run(go())


def test_who_causes_events_waits_until_they_are_popped():
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
