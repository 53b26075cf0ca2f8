from __future__ import annotations

import asyncio
import json

import pytest

from container.live.frame_messages import PATCH, FrameMessage
from container.live.send_queue import MOST_EVENTS, MOST_PCM, Outbox, TooSlow


def frame(number: int, generation: int = 0, pcm: bytes | None = None) -> FrameMessage:
    sound = bytes([number, 0]) if pcm is None else pcm
    return FrameMessage(PATCH, True, generation, number, number * 40, 0, 0, 8, 8, b"jpeg", sound)


def test_a_frame_that_was_not_sent_leaves_its_sound_to_the_next():
    outbox = Outbox()
    for i in range(1, 4):
        outbox.put_frame(frame(i))
    taken = outbox.take()
    assert isinstance(taken, FrameMessage)
    assert (taken.frame, taken.pcm, outbox.n_dropped) == (3, bytes([1, 0, 2, 0, 3, 0]), 2)
    assert outbox.take() is None


def test_events_and_frames_keep_their_order():
    outbox = Outbox()
    outbox.put_frame(frame(1))
    outbox.put_event("speech_started", 0, frame=2)
    outbox.put_frame(frame(2))
    first, event, second = outbox.take(), outbox.take(), outbox.take()
    assert isinstance(first, FrameMessage)
    assert isinstance(second, FrameMessage)
    assert (first.frame, second.frame) == (1, 2)
    assert json.loads(str(event)) == {"type": "speech_started", "generation": 0, "frame": 2}


def test_an_interrupt_leaves_events_alone():
    outbox = Outbox()
    outbox.put_frame(frame(1))
    outbox.put_event("stats", 0)
    outbox.put_frame(frame(2))
    outbox.drop_frames()
    assert outbox.n_waiting == 1
    assert '"stats"' in str(outbox.take())


def test_sound_of_another_generation_is_not_kept():
    outbox = Outbox()
    outbox.put_frame(frame(1, generation=0))
    outbox.put_frame(frame(2, generation=1))
    taken = outbox.take()
    assert isinstance(taken, FrameMessage)
    assert taken.pcm == bytes([2, 0])


def test_no_more_than_a_bound_is_kept():
    outbox = Outbox()
    outbox.put_frame(frame(1, pcm=bytes(MOST_PCM)))
    with pytest.raises(TooSlow, match="bytes of sound wait"):
        outbox.put_frame(frame(2))
    outbox = Outbox()
    for _ in range(MOST_EVENTS):
        outbox.put_event("error", 0)
    with pytest.raises(TooSlow, match="messages wait"):
        outbox.put_event("error", 0)


def test_who_waits_is_told():
    async def go() -> None:
        outbox = Outbox()
        waiting = asyncio.create_task(outbox.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.put_event("ready", 0)
        await waiting

    asyncio.run(go())


def test_who_causes_events_waits_until_they_are_taken():
    async def go() -> None:
        outbox = Outbox()
        for _ in range(MOST_EVENTS // 2 + 1):
            outbox.put_event("error", 0)
        waiting = asyncio.create_task(outbox.wait_for_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.take()
        await waiting

    asyncio.run(go())
