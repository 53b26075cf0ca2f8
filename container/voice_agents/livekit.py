"""LiveKit Agents: an avatar as the video of an agent. Needs the extra `livekit`.

An agent that renders its own avatar starts a `LiveKitAvatar` before its session:

    avatar = LiveKitAvatar("starter")
    await avatar.start(session, ctx.room)

An agent whose avatar is rendered elsewhere, by `viseme avatar livekit`, sends its speech there:

    session.output.replace_audio_tail(remote_audio_output(ctx.room))

Source: livekit-agents 1.8.9, `livekit.agents.voice.avatar`: the interfaces of `VideoGenerator` and `AudioReceiver`, and
what `AvatarRunner` does with them.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from container.live.frame_clock import FPS
from container.voice_agents.avatar_renderer import SAMPLE_RATE, AvatarRenderer, open_renderer
from container.voice_agents.channels import mix_channels
from container.voice_agents.extras import require_extra
from container.voice_agents.speech_player import PlaybackLead, ShownImage, SpeechPlayer
from container.voice_agents.speech_timeline import PlayedAudio
from inference.audio.mel import Samples

with require_extra("livekit"):
    from livekit import rtc
    from livekit.agents import AgentSession
    from livekit.agents.voice.avatar import (
        AudioReceiver,
        AudioSegmentEnd,
        AvatarOptions,
        AvatarRunner,
        DataStreamAudioOutput,
        DataStreamAudioReceiver,
        QueueAudioOutput,
        VideoGenerator,
    )

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

logger = logging.getLogger("viseme.live")
AVATAR_IDENTITY = "viseme-avatar"  # of the participant that `viseme avatar livekit` is, unless another is named
# The runner's queue of audio takes 100 ms: two frames of 40 ms. Images are never early, so that none is queued when
# the speech is interrupted.
LEAD = PlaybackLead(audio_s=0.04)


class AvatarVideoGenerator(VideoGenerator):
    """Gives an `AvatarRunner` the images and the audio of an avatar, in real time.

    A segment is the audio up to an `AudioSegmentEnd`. The next one is accepted when its predecessor was played: the
    runner counts only one at a time.
    """

    def __init__(self, renderer: AvatarRenderer, player: SpeechPlayer | None = None) -> None:
        """Play the speech of `renderer`, with LEAD unless there is a player for it."""
        self._renderer = renderer
        self._player = player or SpeechPlayer(renderer, LEAD)
        self._resampler: SegmentResampler | None = None
        self._segment_over: asyncio.Event | None = None  # of the segment that is played; None between segments
        self._has_returned = asyncio.Event()  # whether the runner has pushed the last audio that it got
        self._has_returned.set()
        self._n_clearing = 0
        self._cleared = asyncio.Event()
        self.drop_queued: Callable[[], Awaitable[None]] | None = None  # empties the runner's queues

    @property
    def options(self) -> AvatarOptions:
        """The options of the runner's tracks."""
        return AvatarOptions(self._renderer.width, self._renderer.height, FPS, SAMPLE_RATE, 1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Push the agent's audio, of any rate and number of channels. The end of a segment returns when it is played.

        While two minutes of speech wait, it does not return.
        """
        if isinstance(frame, AudioSegmentEnd):
            await self._end_segment()
        elif await self._player.wait_for_space():
            if self._segment_over is None:
                self._segment_over = asyncio.Event()
            self._push(self._resample(frame))

    def _resample(self, frame: rtc.AudioFrame) -> Samples:
        """Return the frame's audio as mono at SAMPLE_RATE, as far as it is complete."""
        if self._resampler is None or self._resampler.rate != frame.sample_rate:
            rest = self._finish_resampler()
            self._resampler = SegmentResampler(frame.sample_rate)
            return np.concatenate([rest, self._resampler.push(frame)])
        return self._resampler.push(frame)

    def _finish_resampler(self) -> Samples:
        resampler, self._resampler = self._resampler, None
        return np.zeros(0, np.int16) if resampler is None else resampler.finish()

    def _push(self, pcm: Samples) -> None:
        if len(pcm):
            self._player.push_audio(pcm)

    async def _end_segment(self) -> None:
        """End the segment, if there is one: after `clear_buffer` the rest of it still ends."""
        if self._segment_over is None:
            return
        self._push(self._finish_resampler())
        self._player.end_utterance()
        self._player.add_marker(AudioSegmentEnd())
        await self._segment_over.wait()

    async def clear_buffer(self) -> None:
        """Drop the segment at once. Returns when the runner has counted all that it played, and its queues are empty.

        The runner adds a frame to its position after it has pushed it, and reports the position when this returns.
        """
        self._player.interrupt()
        self._resampler = None
        self._leave_segment()
        self._n_clearing += 1
        self._cleared.clear()
        try:
            await self._has_returned.wait()
            if self.drop_queued is not None:
                await self.drop_queued()
        finally:
            self._n_clearing -= 1
            if not self._n_clearing:
                self._cleared.set()

    def _leave_segment(self) -> None:
        segment_over, self._segment_over = self._segment_over, None
        if segment_over is not None:
            segment_over.set()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        return self._generate()

    async def _generate(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        async for item in self._player.play():
            if isinstance(item, ShownImage):
                yield self._video_frame(item)
            elif isinstance(item, PlayedAudio):
                self._has_returned.clear()
                try:
                    yield audio_frame(item.pcm)
                finally:
                    self._has_returned.set()
            else:
                self._leave_segment()
                yield AudioSegmentEnd()
            while self._n_clearing:
                await self._cleared.wait()

    def _video_frame(self, shown: ShownImage) -> rtc.VideoFrame:
        height, width = shown.image_rgb.shape[:2]
        return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, shown.image_rgb.tobytes())

    async def aclose(self) -> None:
        """End the session with the avatar."""
        await self._player.close()


class SegmentResampler:
    """Converts the audio of one segment to mono at SAMPLE_RATE."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._resampler = None if rate == SAMPLE_RATE else rtc.AudioResampler(rate, SAMPLE_RATE)

    def push(self, frame: rtc.AudioFrame) -> Samples:
        """Return what the frame completes: (n,) int16."""
        pcm = mix_channels(frame.data, frame.num_channels)
        if self._resampler is None:
            return pcm
        return join_frames(self._resampler.push(bytearray(pcm.tobytes())))

    def finish(self) -> Samples:
        """Return the rest: (n,) int16."""
        return np.zeros(0, np.int16) if self._resampler is None else join_frames(self._resampler.flush())


def join_frames(frames: list[rtc.AudioFrame]) -> Samples:
    """Return the samples of mono frames: (n,) int16."""
    return np.concatenate([np.zeros(0, np.int16), *(np.frombuffer(frame.data, np.int16) for frame in frames)])


def audio_frame(pcm: Samples) -> rtc.AudioFrame:
    """Return (n,) int16 mono at SAMPLE_RATE as a LiveKit frame."""
    return rtc.AudioFrame(pcm.tobytes(), SAMPLE_RATE, 1, len(pcm))


class PlaybackReports(AudioReceiver):
    """Reports of a receiver, made exact: one for each segment, with the position of what was really played.

    The runner counts audio when it is queued; if it is interrupted, what is still in the queue is never played. And it
    reports no interrupt of a segment from which it has no audio yet, for which the agent would wait.
    """

    _n_finished = 0  # segments whose end was reported
    _n_cleared = 0  # segments that had begun at the last interrupt
    _dropped_s = 0.0

    @property
    @abstractmethod
    def n_begun(self) -> int:
        """Segments that the agent has begun."""

    def notify_playback_finished(self, playback_position: float, interrupted: bool) -> None:
        """Report the end of a segment to the agent, without the audio that was dropped from the runner's queue."""
        dropped_s, self._dropped_s = self._dropped_s, 0.0
        self._n_finished += 1
        super().notify_playback_finished(max(playback_position - dropped_s, 0.0), interrupted)  # type: ignore[safe-super]

    def count_cleared(self) -> None:
        """Note which segments an interrupt ends."""
        self._n_cleared = self.n_begun

    def count_dropped(self, dropped_s: float) -> None:
        """Subtract this from the position that is reported next."""
        self._dropped_s = dropped_s

    def finish_cleared(self) -> None:
        """Report the segments that an interrupt ended and the runner has not reported: nothing of them was played."""
        self._dropped_s = 0.0
        while self._n_finished < self._n_cleared:
            self.notify_playback_finished(0.0, interrupted=True)


class RoomSpeechReceiver(PlaybackReports, DataStreamAudioReceiver):
    """Receives the speech of an agent in another process, by the streams of its room."""

    def __init__(self, room: rtc.Room, *, sender_identity: str) -> None:
        """sender_identity: of the agent."""
        self._n_begun = 0
        super().__init__(StreamCounter(room, self._count_stream), sender_identity=sender_identity)  # type: ignore[arg-type]

    @property
    def n_begun(self) -> int:
        return self._n_begun

    def _count_stream(self) -> None:
        self._n_begun += 1


class StreamCounter:
    """A room that calls a function for each byte stream that comes, before its handler."""

    def __init__(self, room: rtc.Room, count: Callable[[], None]) -> None:
        self._room, self._count = room, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)

    def register_byte_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        """Register the handler of a topic."""

        def count_and_handle(reader: Any, identity: str) -> None:
            self._count()
            handler(reader, identity)

        self._room.register_byte_stream_handler(topic, count_and_handle)


class LocalSpeechOutput(PlaybackReports, QueueAudioOutput):
    """The audio output of an agent in this process."""

    _has_failed = False

    @property
    def n_begun(self) -> int:
        return self.captured_playout_segments

    def flush(self) -> None:
        """Mark the end of a segment."""
        super().flush()
        if self._has_failed:
            self._finish_all()

    def fail(self) -> None:
        """Report every segment as interrupted from now on: the agent would wait for its end."""
        self._has_failed = True
        self._finish_all()

    def _finish_all(self) -> None:
        self.count_cleared()
        self.finish_cleared()


def make_runner(room: rtc.Room, receiver: PlaybackReports, generator: AvatarVideoGenerator) -> AvatarRunner:
    """Return a runner that publishes the avatar's tracks in the room, and reports exactly what was played."""
    runner = AvatarRunner(room, audio_recv=receiver, video_gen=generator, options=generator.options)
    receiver.on("clear_buffer", receiver.count_cleared)

    async def drop_queued() -> None:
        # The runner gives no timestamps, so the time of the last audio is what is queued of it, below zero.
        receiver.count_dropped(max(-runner.av_sync.last_audio_time, 0.0))
        await runner.av_sync.clear_queue()
        asyncio.get_running_loop().call_soon(receiver.finish_cleared)  # behind the report of the runner itself

    generator.drop_queued = drop_queued
    return runner


class LiveKitAvatar:
    """The avatar of an agent, published by the agent itself."""

    def __init__(self, avatar: str | AvatarPackage = "starter", *, server: str | None = None) -> None:
        """Name an avatar.

        avatar: name or folder of a package, or a loaded one. server: ws:// URL of a Viseme server that renders it; else
        it is rendered in this process, which takes most of a CPU core.
        """
        self._avatar, self._server = avatar, server
        self._generator: AvatarVideoGenerator | None = None
        self._runner: AvatarRunner | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room) -> None:
        """Load the avatar and make it the session's audio output. Call it before `agent_session.start`.

        Raises: the errors of `open_renderer`.
        """
        self._generator = AvatarVideoGenerator(await open_renderer(self._avatar, self._server))
        output = LocalSpeechOutput(sample_rate=SAMPLE_RATE, wait_playback_start=True)
        self._runner = make_runner(room, output, self._generator)
        await self._runner.start()
        self._watching = asyncio.create_task(watch(self._runner, output))
        agent_session.output.replace_audio_tail(output)

    async def aclose(self) -> None:
        """Stop the tracks, and end the session with the avatar."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._runner is not None:
            await self._runner.aclose()
        if self._generator is not None:
            await self._generator.aclose()
        self._runner = self._generator = self._watching = None


async def watch(runner: AvatarRunner, output: LocalSpeechOutput) -> None:
    """Let the agent go on without audio if the avatar's session ends by itself."""
    try:
        await runner.wait_for_complete()
    except Exception as err:
        logger.exception("an avatar's session ended", extra={"reason": str(err)})
        output.fail()


def remote_audio_output(room: rtc.Room, identity: str = AVATAR_IDENTITY) -> DataStreamAudioOutput:
    """Return the audio output of an agent whose avatar `viseme avatar livekit` publishes. identity: of the avatar."""
    return DataStreamAudioOutput(
        room,
        destination_identity=identity,
        sample_rate=SAMPLE_RATE,
        wait_remote_track=rtc.TrackKind.KIND_VIDEO,
        wait_playback_start=True,
    )
