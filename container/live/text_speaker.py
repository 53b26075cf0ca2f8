"""Texts that a session's client sends to be spoken."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from container.speech.requests import SpeechRequest
from container.speech.spoken_parts import speak_parts
from container.speech.synthesizer import Synthesizer
from inference.audio.mel import Samples
from inference.error_responses import failure_of
from inference.errors import Overloaded, SpeechUnavailable

logger = logging.getLogger("viseme.live")
MAX_TEXTS = 16  # waiting in a session, besides the one that is spoken
MAX_AHEAD_S = 10.0  # of speech that is made before it is spoken
POLL_S = 0.1
PIECE_S = 0.2  # of speech that is pushed at once: other sessions share the event loop


class SpeechSink(Protocol):
    """The part of `AvatarSession` that speech goes to."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def queued_s(self) -> float: ...

    def push_audio(self, pcm: Samples) -> None: ...

    def flush(self) -> None: ...


class TextSpeaker:
    """Speaks texts one after the other, each part by part. Use it in an event loop."""

    def __init__(
        self, synthesizer: Synthesizer | None, sink: Callable[[], SpeechSink], report: Callable[[str, str], None]
    ) -> None:
        """synthesizer: None if the server speaks no texts. sink: returns what speech is pushed to.

        report: called with the code and the message of an error that ends a text.
        """
        self._synthesizer, self._sink, self._report = synthesizer, sink, report
        self._waiting: deque[SpeechRequest] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the speech of all texts has been pushed."""
        return self._task is None or self._task.done()

    def say(self, request: SpeechRequest) -> None:
        """Speak a text after those before. Raises: SpeechUnavailable, InvalidRequest, Overloaded if too many wait."""
        if self._synthesizer is None:
            raise SpeechUnavailable("this server speaks no texts; expected audio")
        self._synthesizer.check(request)
        if len(self._waiting) >= MAX_TEXTS:
            raise Overloaded(f"{MAX_TEXTS} texts wait to be spoken, which is the limit; try again later")
        self._waiting.append(request)
        if self.is_idle:
            self._task = asyncio.create_task(self._run(self._synthesizer))

    def stop(self) -> None:
        """Drop all texts, also the one that is spoken. A process that speaks it is killed."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, synthesizer: Synthesizer) -> None:
        while self._waiting:
            try:
                await self._speak(synthesizer, self._waiting.popleft())
            except Exception as err:  # the edge: the client gets every error as an event
                failure = failure_of(err)
                if failure.code == "internal_error":
                    logger.exception("unexpected error")
                self._report(failure.code, failure.message)

    async def _speak(self, synthesizer: Synthesizer, request: SpeechRequest) -> None:
        """Push a text's speech, at most some seconds before it is spoken, and end each part as an utterance."""
        sink = self._sink()
        n_piece = round(PIECE_S * sink.sample_rate)
        async for samples in speak_parts(synthesizer, request, sink.sample_rate):
            for at in range(0, len(samples), n_piece):
                while sink.queued_s > MAX_AHEAD_S:
                    await asyncio.sleep(POLL_S)
                sink.push_audio(samples[at : at + n_piece])
                await asyncio.sleep(0)
            sink.flush()
