"""Texts in live sessions, spoken by a program that behaves as espeak-ng does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from support.fake_espeak import write_fake_espeak
from support.waiting import PATIENCE_S

from container.live.frame_clock import FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.frame_messages import FrameMessage
from container.live.session import LiveSession
from container.live.session_options import SessionOptions
from container.live.text_speaker import MAX_AHEAD_S, MAX_TEXTS, TextSpeaker
from container.speech.requests import SpeechRequest
from container.speech.synthesizer import SpeechSynthesizer
from inference.avatar import AvatarPackage
from inference.errors import InvalidRequest, Overloaded, SpeechUnavailable

RATE = 8_000
PART_S = 1.0  # that the program speaks for any text


class Recording:
    """What a session does with speech. Its audio is spoken at once."""

    sample_rate, queued_s = RATE, 0.0

    def __init__(self) -> None:
        self.parts: list[int] = [0]  # samples of each utterance; the last one is open
        self.errors: list[str] = []

    def push_audio(self, pcm: np.ndarray) -> None:
        self.parts[-1] += len(pcm)

    def flush(self) -> None:
        self.parts.append(0)


@pytest.fixture(scope="module")
def espeak(tmp_path_factory: pytest.TempPathFactory) -> SpeechSynthesizer:
    return SpeechSynthesizer(str(write_fake_espeak(tmp_path_factory.mktemp("program"))))


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def speaker_of(espeak: SpeechSynthesizer | None, sink: Recording) -> TextSpeaker:
    return TextSpeaker(espeak, lambda: sink, lambda code, _message: sink.errors.append(code))


def say(speaker: TextSpeaker, text: str) -> None:
    speaker.say(SpeechRequest(text=text))


def test_texts_are_spoken_in_order_part_by_part_despite_a_failure(espeak: SpeechSynthesizer):
    async def run() -> Recording:
        sink = Recording()
        speaker = speaker_of(espeak, sink)
        say(speaker, "Here is one sentence. And here is another one.")
        say(speaker, "crash")
        say(speaker, "The last text.")
        assert not speaker.is_idle
        await wait_until(lambda: speaker.is_idle)
        return sink

    sink = asyncio.run(run())
    assert sink.parts == [round(PART_S * RATE)] * 3 + [0]
    assert sink.errors == ["worker_died"]


def test_speech_is_not_made_far_ahead(espeak: SpeechSynthesizer):
    async def run() -> None:
        sink = Recording()
        sink.queued_s = MAX_AHEAD_S + 1
        speaker = speaker_of(espeak, sink)
        say(speaker, "One text.")
        await asyncio.sleep(0)
        for _ in range(MAX_TEXTS):
            say(speaker, "And another text.")
        with pytest.raises(Overloaded, match="16 texts wait"):
            say(speaker, "One too many.")
        sink.queued_s = 0.0
        await wait_until(lambda: speaker.is_idle)
        assert len(sink.parts) == MAX_TEXTS + 2

    asyncio.run(run())


def test_a_stop_kills_the_program_and_later_texts_are_spoken(espeak: SpeechSynthesizer):
    async def run() -> Recording:
        sink, before = Recording(), set(psutil.Process().children())
        speaker = speaker_of(espeak, sink)
        say(speaker, "hang")
        say(speaker, "This one is dropped, too.")
        await wait_until(lambda: set(psutil.Process().children()) > before)
        speaker.stop()
        assert speaker.is_idle
        await wait_until(lambda: set(psutil.Process().children()) <= before)
        assert sink.parts == [0]
        say(speaker, "Again.")
        await wait_until(lambda: speaker.is_idle)
        return sink

    sink = asyncio.run(run())
    assert sink.parts == [round(PART_S * RATE), 0]
    assert not sink.errors


def test_without_a_synthesiser_the_error_says_so():
    with pytest.raises(SpeechUnavailable, match="speaks no texts; expected audio"):
        say(speaker_of(None, Recording()), "a")


def test_a_session_speaks_a_text_and_drops_it_at_an_interrupt(avatar_package: AvatarPackage, espeak: SpeechSynthesizer):
    """By hand: a second of audio has 25 frames of 640 samples at 16 kHz."""

    async def run() -> tuple[list[FrameMessage], list[str]]:
        async def run_inline(function: Callable[..., object], *arguments: object) -> object:
            return function(*arguments)

        options, encoder = SessionOptions(), FrameEncoder(avatar_package)
        clock = FrameClock(sleep=lambda _seconds: asyncio.sleep(0))
        session = LiveSession(avatar_package, encoder, options, run_inline, clock, espeak)
        frames, events = [], []
        for text in ('{"type":"say","text":""}', '{"type":"say","text":"Hello.","pitch":1}'):
            with pytest.raises(InvalidRequest, match=r'"(text|pitch)"'):
                await session.handle_message(text)
        await session.handle_message(json.dumps({"type": "say", "text": "Hello.", "rate": 300}))
        assert not session.is_silent
        await wait_until(lambda: session._texts.is_idle)
        producing = asyncio.create_task(session.produce_frames())

        def has_finished() -> bool:
            while session.queue.n_queued:
                message = session.queue.pop()
                if isinstance(message, FrameMessage):
                    frames.append(message)
                elif message is not None:
                    events.append(json.loads(message)["type"])
            return "speech_finished" in events

        await wait_until(has_finished)
        await session.handle_message('{"type":"say","text":"hang"}')
        await session.handle_message('{"type":"interrupt"}')
        assert session.is_silent
        session.close()
        producing.cancel()
        return frames, events

    frames, events = asyncio.run(run())
    spoken = [frame for frame in frames if frame.is_speaking]
    assert b"".join(frame.pcm for frame in spoken) != bytes(2 * 640 * 25)
    assert sum(len(frame.pcm) for frame in spoken) == 2 * 640 * 25
    assert events[:3] == ["ready", "speech_started", "speech_finished"]
