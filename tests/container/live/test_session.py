"""Live sessions by a simulated clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from container.live.frame_clock import FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.frame_messages import FrameMessage
from container.live.session import LiveSession
from container.live.session_options import SessionOptions
from inference.avatar import AvatarPackage

RATE = 16_000
SPEECH = (6000 * np.sin(np.arange(RATE * 6 // 10) / 9)).astype(np.int16)  # 0.6 s: 15 frames
Message = tuple[float, bytes | str]  # the time at which it arrives


class Finished(Exception):
    """Raised when the simulated time is over."""


class Simulation:
    """A session whose clock advances from frame to frame, and the messages that arrive meanwhile."""

    def __init__(self, package: AvatarPackage, messages: Sequence[Message], end_s: float) -> None:
        self._now_s, self._end_s, self._messages = 0.0, end_s, list(messages)
        clock = FrameClock(lambda: self._now_s, self._sleep)
        self._session = LiveSession(package, FrameEncoder(package), SessionOptions(), run_inline, clock)
        self._engine = self._session._session
        self._flush = self._engine.flush
        vars(self._engine)["flush"] = self._record_end
        self.ends_s: list[float] = []  # when an utterance was ended
        self.events: list[tuple[float, str]] = []
        self.frames: list[tuple[float, FrameMessage]] = []

    def run(self) -> Simulation:
        try:
            asyncio.run(self._session.produce_frames())
        except Finished:
            return self
        raise AssertionError("the session ended by itself")

    async def _sleep(self, seconds: float) -> None:
        while self._session.queue.n_queued:
            message = self._session.queue.pop()
            if isinstance(message, FrameMessage):
                self.frames.append((self._now_s, message))
            elif message is not None:
                self.events.append((self._now_s, json.loads(message)["type"]))
        self._now_s += seconds + 1e-6
        while self._messages and self._messages[0][0] <= self._now_s:
            await self._session.handle_message(self._messages.pop(0)[1])
        if self._now_s >= self._end_s:
            raise Finished

    def _record_end(self) -> None:
        self.ends_s.append(round(self._now_s, 2))
        self._flush()

    @property
    def speech(self) -> list[FrameMessage]:
        return [frame for _, frame in self.frames if frame.is_speaking]

    def time_of(self, event: str) -> float:
        return next(at_s for at_s, kind in self.events if kind == event)


async def run_inline(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def pcm_of(frames: Sequence[FrameMessage]) -> bytes:
    return b"".join(frame.pcm for frame in frames)


def test_an_utterance_without_flush_is_spoken_to_its_end(avatar_package: AvatarPackage):
    """By hand: 0.6 s make 15 frames, of which 4 are spoken from 1.0 s on; the others wait from 1.16 s on."""
    simulation = Simulation(avatar_package, [(1.0, SPEECH.tobytes())], 4.0).run()
    assert pcm_of(simulation.speech) == SPEECH.tobytes()
    assert simulation.ends_s == [1.64]  # the first frame after 1.12 + 0.5 s
    assert simulation.time_of("speech_finished") == pytest.approx(1.64 + 0.04 * 12, abs=0.001)


def test_a_shorter_pause_does_not_end_it(avatar_package: AvatarPackage):
    parts = [(1.0, SPEECH[:5000].tobytes()), (1.45, SPEECH[5000:].tobytes()), (1.85, '{"type":"flush"}')]
    simulation = Simulation(avatar_package, parts, 4.0).run()
    assert simulation.ends_s == [1.88]  # by the client
    assert pcm_of(simulation.speech) == SPEECH.tobytes()


def test_audio_in_bursts_is_one_utterance(avatar_package: AvatarPackage):
    """A burst of a second is spoken for 0.56 s, so that the rest waits 0.44 s for the next burst."""
    long = np.tile(SPEECH, 5)[: 3 * RATE]
    bursts = [(1.0 + k, long[k * RATE : (k + 1) * RATE].tobytes()) for k in range(3)]
    simulation = Simulation(avatar_package, bursts, 6.0).run()
    assert len(simulation.ends_s) == 1
    assert simulation.ends_s[0] > 4
    assert pcm_of(simulation.speech) == long.tobytes()


def test_later_audio_is_the_next_utterance(avatar_package: AvatarPackage):
    simulation = Simulation(avatar_package, [(0.0, SPEECH.tobytes()), (3.0, SPEECH.tobytes())], 6.0).run()
    assert pcm_of(simulation.speech) == SPEECH.tobytes() * 2
    kinds = [kind for _, kind in simulation.events if kind != "stats"]
    assert kinds == ["ready", "speech_started", "speech_finished", "speech_started", "speech_finished"]
    first, second = simulation.speech[:15], simulation.speech[15:]
    assert len(first) == len(second) == 15
    assert len(simulation.ends_s) == 2


def test_one_sample_is_a_frame(avatar_package: AvatarPackage):
    simulation = Simulation(avatar_package, [(0.5, SPEECH[1:2].tobytes())], 2.0).run()
    assert pcm_of(simulation.speech) == SPEECH[1:2].tobytes() + bytes(2 * 639)
