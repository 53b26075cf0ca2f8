"""Avatars of LiveKit agents: the package's own runner, audio outputs and receivers, over a room without a server."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from livekit import api, rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import AvatarRunner
from livekit.agents.voice.io import PlaybackFinishedEvent
from livekit.rtc import synchronizer
from support import livekit_room
from support.livekit_room import PlayedPiece, StandInRoom, TimedAudioSource, linked_rooms
from support.scripted_avatar import ScriptedAvatar, speech
from support.virtual_loop import run_virtually

from container.rejections import RequestRejected
from container.voice_agents import livekit
from container.voice_agents.avatar_renderer import SAMPLE_RATE, AvatarFrame
from container.voice_agents.livekit import (
    LEAD,
    AvatarVideoGenerator,
    LiveKitAvatar,
    LocalSpeechOutput,
    RoomSpeechReceiver,
    SegmentResampler,
    make_runner,
    remote_audio_output,
)
from container.voice_agents.livekit_worker import RoomInvitation, join_token, speak_in_room
from container.voice_agents.speech_player import SpeechPlayer
from inference.errors import InvalidRequest
from inference.settings import Settings

GUARD_S = 600.0  # of the loop's clock, against hanging
N_SEGMENTS = 40
AVATAR, AGENT = "viseme-avatar", "agent"
STOP_S = 0.02  # from an interrupt to its report: an RPC in each direction, and what the library does meanwhile


class FailingAvatar(ScriptedAvatar):
    async def next_frame(self) -> AvatarFrame:
        raise RequestRejected("closed", "the session is closed")


@dataclass
class Segment:
    """What happened to one segment: its events with their times, and when it was interrupted."""

    number: int
    n_samples: int
    cleared_s: float | None = None
    started: list[float] = field(default_factory=list)
    finished: list[tuple[float, float, bool]] = field(default_factory=list)  # time, position, interrupted


@dataclass
class Stage:
    """An agent's audio output and the avatar's runner, by the loop's clock. images: time and number of each."""

    output: Any
    runner: AvatarRunner
    generator: AvatarVideoGenerator
    renderer: ScriptedAvatar
    rng: random.Random
    images: list[tuple[float, int]]
    segments: list[Segment] = field(default_factory=list)  # that the output has begun

    @property
    def unfinished(self) -> list[Segment]:
        return [segment for segment in self.segments if not segment.finished]

    @property
    def audio(self) -> TimedAudioSource:
        return livekit_room.instances[-1]

    async def speak(self, segment: Segment, *, rate: int = SAMPLE_RATE, channels: int = 1) -> None:
        """Send a segment in pieces, as a synthesiser does, faster than it is played."""
        n_left, n_before = segment.n_samples, self.output.captured_playout_segments
        self.segments.append(segment)
        while n_left:
            n = min(n_left, self.rng.choice([160, 480, 960, 2400, 4800]))
            data = np.repeat(speech(segment.number, n), channels).tobytes()
            try:
                await self.output.capture_frame(rtc.AudioFrame(data, rate, channels, n))
            except asyncio.CancelledError:
                if self.output.captured_playout_segments == n_before:
                    self.segments.remove(segment)  # it has not begun
                raise
            n_left -= n
            await asyncio.sleep(self.rng.choice([0, 0, 0.01]))
        self.output.flush()

    def played_of(self, segment: Segment) -> list[PlayedPiece]:
        return [piece for piece in self.audio.played if piece.number == segment.number]


def record_events(stage: Stage) -> None:
    """Record the output's events at the segment that they are about: it is the first one that has not finished."""
    now = asyncio.get_running_loop().time
    stage.output.on("playback_started", lambda _event: stage.unfinished[0].started.append(now()))

    def on_finished(event: PlaybackFinishedEvent) -> None:
        if type(event) is PlaybackFinishedEvent:  # not that of a capture which was canceled before it was accepted
            stage.unfinished[0].finished.append((now(), event.playback_position, event.interrupted))

    stage.output.on("playback_finished", on_finished)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, int]]]:
    """Record the images of every video track, by the clock of the loop, which the audio and LiveKit's pacing follow."""
    captured: list[tuple[float, int]] = []
    capture = rtc.VideoSource.capture_frame

    def record(source: rtc.VideoSource, frame: rtc.VideoFrame, **more: Any) -> None:
        captured.append((asyncio.get_running_loop().time(), frame.data[0]))
        capture(source, frame, **more)

    monkeypatch.setattr(rtc, "AudioSource", TimedAudioSource)
    monkeypatch.setattr(rtc.VideoSource, "capture_frame", record)
    monkeypatch.setattr(synchronizer, "time", SimpleNamespace(perf_counter=lambda: asyncio.get_running_loop().time()))
    yield captured
    livekit_room.instances.clear()


async def open_stage(images: list[tuple[float, int]], seed: int = 1, *, is_local: bool = False) -> Stage:
    agent_room, avatar_room = linked_rooms(AGENT, AVATAR)
    renderer = ScriptedAvatar()
    generator = AvatarVideoGenerator(renderer, SpeechPlayer(renderer, LEAD, asyncio.get_running_loop().time))
    if is_local:
        output = receiver = LocalSpeechOutput(sample_rate=SAMPLE_RATE, wait_playback_start=True)
    else:
        receiver = RoomSpeechReceiver(avatar_room, sender_identity=AGENT)
        output = remote_audio_output(agent_room)
    runner = make_runner(avatar_room, receiver, generator)
    await runner.start()
    stage = Stage(output, runner, generator, renderer, random.Random(seed), images)
    record_events(stage)
    return stage


async def close_stage(stage: Stage) -> None:
    await stage.runner.aclose()
    await stage.generator.aclose()


async def speak_forty(images: list[tuple[float, int]], seed: int, *, is_local: bool) -> Stage:
    stage = await open_stage(images, seed, is_local=is_local)
    async with asyncio.timeout(GUARD_S):
        await speak_segments(stage, stage.rng)
        await stage.output.wait_for_playout()
    await asyncio.sleep(0.5)
    await close_stage(stage)
    return stage


async def speak_segments(stage: Stage, rng: random.Random) -> None:
    for number in itertools.count(1):
        if len(stage.segments) == N_SEGMENTS:
            return
        segment = Segment(number, rng.randint(1, 3 * SAMPLE_RATE // 2))
        speaking = asyncio.create_task(stage.speak(segment))
        if rng.random() < 0.6:
            await asyncio.sleep(rng.choice([0, 0.001, rng.uniform(0, 1.0), segment.n_samples / SAMPLE_RATE]))
            await interrupt(stage, speaking)
        elif rng.random() < 0.3:
            await speaking
            continue  # the next segment follows at once
        await asyncio.gather(speaking, return_exceptions=True)
        await stage.output.wait_for_playout()
        await asyncio.sleep(rng.choice([0, 0.01, rng.uniform(0, 0.3)]))


async def interrupt(stage: Stage, speaking: asyncio.Task[None]) -> None:
    """Interrupt as `AgentSession` does: no more is captured, then the buffer is cleared."""
    if not speaking.done():
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        stage.output.flush()
    for segment in stage.unfinished:
        segment.cleared_s = asyncio.get_running_loop().time()
    stage.output.clear_buffer()


@pytest.mark.parametrize("is_local", [False, True], ids=["over a room", "in the agent's process"])
def test_forty_segments_with_interrupts_at_random(images: list[tuple[float, int]], is_local: bool):
    stage = run_virtually(speak_forty(images, seed=1, is_local=is_local))
    for segment in stage.segments:
        played = stage.played_of(segment)
        played_s = sum(piece.duration_s for piece in played)
        [(finished_s, position, interrupted)] = segment.finished
        assert position == pytest.approx(played_s), segment
        assert interrupted or position == pytest.approx(segment.n_samples / SAMPLE_RATE), segment
        assert not interrupted or finished_s <= segment.cleared_s + STOP_S, segment
        assert len(segment.started) == (position > 0), segment
        assert all(s <= finished_s for s, shown in images if shown == segment.number), segment
        assert all(piece.start_s + piece.duration_s <= finished_s + 1e-9 for piece in played), segment
    assert len(stage.segments) == N_SEGMENTS
    assert 10 < sum(segment.finished[0][2] for segment in stage.segments) < 35
    assert stage.renderer.is_closed


def test_an_agent_session_speaks_and_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    """LiveKit's own session and tracks, in real time."""
    renderer = ScriptedAvatar()

    async def open_scripted(*_arguments: object) -> ScriptedAvatar:
        return renderer

    async def audio_of(number: int, n_pieces: int) -> AsyncIterator[rtc.AudioFrame]:
        for _ in range(n_pieces):
            yield rtc.AudioFrame(speech(number, 2400).tobytes(), SAMPLE_RATE, 1, 2400)

    async def run() -> list[tuple[float, bool]]:
        room = linked_rooms(AGENT, AVATAR)[0]
        avatar, session, finished = LiveKitAvatar(), AgentSession(), []
        await avatar.start(session, room)
        await session.start(Agent(instructions=""))
        session.output.audio.on(
            "playback_finished", lambda event: finished.append((event.playback_position, event.interrupted))
        )
        await session.say("one", audio=audio_of(1, 3))
        interrupted = session.say("two", audio=audio_of(2, 100))
        started = asyncio.Event()
        session.output.audio.once("playback_started", lambda _event: started.set())
        await started.wait()
        interrupted.interrupt()
        await interrupted.wait_for_playout()
        await session.aclose()
        await avatar.aclose()
        assert list(room.local_participant.track_publications) == ["avatar_audio", "avatar_video"]
        return finished

    async def guarded() -> list[tuple[float, bool]]:
        async with asyncio.timeout(60):
            return await run()

    monkeypatch.setattr(livekit, "open_renderer", open_scripted)
    (position, was_interrupted), (second_position, second_was_interrupted) = asyncio.run(guarded())
    assert (position, was_interrupted) == (pytest.approx(0.3), False)
    assert second_was_interrupted
    assert 0 <= second_position < 10
    assert renderer.is_closed


def test_an_agent_does_not_wait_for_an_avatar_that_failed(monkeypatch: pytest.MonkeyPatch):
    async def open_failing(*_arguments: object) -> ScriptedAvatar:
        return FailingAvatar()

    async def run() -> list[tuple[float, bool]]:
        avatar, session = LiveKitAvatar(), AgentSession()
        await avatar.start(session, linked_rooms(AGENT, AVATAR)[0])
        output, finished = session.output.audio, []
        output.on("playback_finished", lambda event: finished.append((event.playback_position, event.interrupted)))
        for _ in range(2):
            await output.capture_frame(rtc.AudioFrame(speech(1, 2400).tobytes(), SAMPLE_RATE, 1, 2400))
            output.flush()
            async with asyncio.timeout(60):
                await output.wait_for_playout()
        await avatar.aclose()
        return finished

    monkeypatch.setattr(livekit, "open_renderer", open_failing)
    assert asyncio.run(run()) == [(0.0, True), (0.0, True)]


def test_another_rate_and_two_channels(images: list[tuple[float, int]]):
    async def speak() -> tuple[Stage, Segment]:
        stage = await open_stage(images)
        segment = Segment(9, 44_100)
        await stage.speak(segment, rate=44_100, channels=2)
        async with asyncio.timeout(GUARD_S):
            await stage.output.wait_for_playout()
        await close_stage(stage)
        return stage, segment

    stage, segment = run_virtually(speak())
    [(_, position, interrupted)] = segment.finished
    assert position == pytest.approx(1.0, abs=0.002)  # what LiveKit's resampler makes of a second
    assert not interrupted
    assert all(abs(piece.number - segment.number) <= 1 for piece in stage.audio.played[1:-1])
    assert sum(shown > 0 for _, shown in images) in (25, 26)


def test_channels_are_mixed():
    stereo = np.array([[100, 200], [-3, -4], [32_767, 32_767]], np.int16)
    frame = rtc.AudioFrame(stereo.tobytes(), SAMPLE_RATE, 2, 3)
    assert SegmentResampler(SAMPLE_RATE).push(frame).tolist() == [150, -4, 32_767]


def test_the_worker_leaves_with_its_agent():
    async def run() -> tuple[StandInRoom, ScriptedAvatar]:
        room = linked_rooms(AVATAR, AGENT)[0]
        renderer = ScriptedAvatar()
        working = asyncio.create_task(speak_in_room(room, renderer, None))
        await asyncio.sleep(0.2)
        room.emit("participant_disconnected", room.remote_participants[AGENT])
        async with asyncio.timeout(GUARD_S):
            await working
        return room, renderer

    room, renderer = run_virtually(run())
    assert renderer.is_closed
    assert list(room.local_participant.track_publications) == ["avatar_audio", "avatar_video"]


def test_a_session_that_fails_ends_the_worker():
    async def run() -> None:
        room = linked_rooms(AVATAR, AGENT)[0]
        async with asyncio.timeout(GUARD_S):
            await speak_in_room(room, FailingAvatar(), AGENT)

    with pytest.raises(RequestRejected, match="the session is closed"):
        run_virtually(run())


INVITATION = RoomInvitation("ws://localhost:7880", "stage", AVATAR, AGENT)


def test_a_token_is_signed_for_the_room(tmp_path: Path):
    settings = Settings(data_dir=tmp_path, livekit_api_key="key", livekit_api_secret="s" * 32)
    claims = api.TokenVerifier("key", "s" * 32).verify(join_token(INVITATION, settings))
    assert (claims.identity, claims.kind, claims.video.room, claims.video.room_join) == (AVATAR, "agent", "stage", True)
    assert claims.attributes == {"lk.publish_on_behalf": AGENT}


def test_a_token_of_the_settings_is_used_as_it_is(tmp_path: Path):
    assert join_token(INVITATION, Settings(data_dir=tmp_path, livekit_token="given")) == "given"


def test_no_token(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="LIVEKIT_API_KEY and LIVEKIT_API_SECRET"):
        join_token(INVITATION, Settings(data_dir=tmp_path))
