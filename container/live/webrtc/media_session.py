"""The live session of a WebRTC connection: its frames are whole images for a video encoder, not JPEGs."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from container.live.frame_clock import FPS
from container.live.frame_messages import WHOLE, FrameMessage
from container.live.session import STATS_INTERVAL, LiveSession
from container.live.viseme_session import VisemeAvatarSession
from container.live.webrtc.opus_packets import OpusPackets

if TYPE_CHECKING:
    from inference.audio.mel import Samples
    from inference.avatar import AvatarSession, TimedFrame
    from inference.avatar.session import PlannedFrame

FRAME_MS = 1000 // FPS
# Audio is played so long after its frame is due, which is when the rendering of its image starts at the latest. The
# image is played later still: browsers buffer audio for longer than video, by about the difference, or by more.
AUDIO_DELAY_S, IMAGE_DELAY_S = 0.04, 0.06
MAX_LEAD = 6  # frames of speech that are rendered before they are due, if their audio is there
# Frames of speech for each of these: to render all of them at once would delay other sessions, and the tracks.
FRAMES_PER_LEAD = 4
CHECK_EVERY_S = 0.02  # while the next frame is awaited
N_PARALLEL = 2  # frames that are rendered at a time
SKIP_AFTER_S = 0.12  # after it was to be played, a frame is not rendered any more; browsers buffer about as much


@dataclass(frozen=True, kw_only=True)
class MediaFrame(FrameMessage):
    """A frame for the tracks; its `jpeg` is empty.

    image: (H * 3 / 2, W) uint8, planar YUV 4:2:0 (I420) with BT.601's matrix and limited range; W and H are even. None
    until it is rendered. packets: its audio, as Opus, 20 ms each.
    """

    image: npt.NDArray[np.uint8] | None = None
    packets: tuple[bytes, ...]


class FramePlayer(Protocol):
    """Plays the frames of a session, each when its time has come."""

    def play_audio(self, frame: MediaFrame) -> None:
        """Take the audio of the next frame."""

    def play_image(self, frame: MediaFrame) -> None:
        """Take the image of a frame whose audio came before."""

    def drop_waiting(self) -> int:
        """Drop the frames that are not played yet; return the number of the first one that was not."""


class MediaSession(LiveSession):
    """A live session whose frames are `MediaFrame`s. Set its `player` before frames are produced."""

    player: FramePlayer
    _opus: OpusPackets | None = None
    _n_spoken = 0  # frames of speech since the last one at rest

    async def produce_frames(self) -> None:
        """Pass the audio and the image of each frame to the player, in order, until canceled.

        Frames of speech are rendered before they are due, as far as their audio is there. Audio waits for no image:
        a frame whose turn to be rendered does not come before it is played has none.
        """
        renders: deque[asyncio.Task[None]] = deque()
        try:
            while True:
                await self._wait_for_next_frame()
                await self._produce_frame(renders)
        finally:
            for task in renders:
                task.cancel()
            await asyncio.gather(*renders, return_exceptions=True)

    async def _wait_for_next_frame(self) -> None:
        """Return when the next frame is to be planned. An interrupt meanwhile gives it an earlier number and time."""
        while (start_s := (self._n_frames - self._lead) / FPS) > (now_s := self._clock.elapsed_s()):
            await self._clock.wait_until(min(start_s, now_s + CHECK_EVERY_S))
        await self._clock.wait_until_due(self._n_frames, self._lead)

    @property
    def _lead(self) -> int:
        return min(self._n_spoken // FRAMES_PER_LEAD, MAX_LEAD) if self._session.is_ready else 0

    async def _produce_frame(self, renders: deque[asyncio.Task[None]]) -> None:
        """Plan the next frame, and start to render it. renders: of the frames before it, to which its own is added."""
        session, n_before = self._session, self._n_before_restart
        planned, packets = await self._run(self._plan, session)
        timed = planned.timed
        if session is not self._session or timed.generation != session.generation:
            return  # the session was restarted or interrupted: this number is given again
        message = self._make_message(timed, n_before + timed.frame, packets)
        self._n_frames = message.frame + 1
        self._n_spoken = self._n_spoken + 1 if timed.is_speaking else 0
        self._send_speech_event(message)
        self.player.play_audio(message)
        self._end_quiet_utterance(message)
        if self._n_frames % STATS_INTERVAL == 0:
            self._send_event("stats", **self._stats())
        has_turn = await self._wait_for_turn(renders, message.frame)
        if timed.generation != session.generation:
            return
        if has_turn:
            before = renders[-1] if renders else None
            renders.append(asyncio.create_task(self._show(session, planned, message, before)))
        else:
            self.count_drop()

    async def _wait_for_turn(self, renders: deque[asyncio.Task[None]], frame: int) -> bool:
        """Return whether a frame can be rendered: whether few enough are, before it is to be played."""
        late_s = self._clock.lateness_s(frame) - IMAGE_DELAY_S
        if len(renders) == N_PARALLEL:
            await asyncio.wait({renders[0]}, timeout=max(-late_s, 0))
            if not renders[0].done():
                return False
        while renders and renders[0].done():
            renders.popleft().result()  # raises what went wrong
        return late_s <= SKIP_AFTER_S

    async def _show(
        self, session: AvatarSession, planned: PlannedFrame, message: MediaFrame, before: asyncio.Task[None] | None
    ) -> None:
        """Render a frame, and pass it to the player after the one before it."""
        image = await self._run(self._render, session, planned)
        if before is not None:
            await before
        if message.generation == session.generation:
            self.player.play_image(replace(message, image=image))

    def count_drop(self) -> None:
        """Count a frame that is not played."""
        self.queue.n_dropped += 1
        self._clock.counts.n_dropped += 1

    def _interrupt_speech(self) -> None:
        self._session.interrupt(self.player.drop_waiting() - self._n_before_restart)
        self._n_frames, self._n_spoken = self._n_before_restart + self._session.n_frames, 0

    def _send_speech_event(self, frame: FrameMessage) -> None:
        """Report the start and end of speech, and the frame's visemes, which its image does not carry here."""
        super()._send_speech_event(frame)
        if frame.visemes is not None:
            self._send_event("visemes", frame=frame.frame, pts_ms=frame.pts_ms, **frame.visemes)

    def _plan(self, session: AvatarSession) -> tuple[PlannedFrame, tuple[bytes, ...]]:
        """Take the next frame, and encode its audio. Call it in a thread."""
        planned = session.plan()
        if isinstance(session, VisemeAvatarSession):
            planned = replace(planned, timed=session.with_visemes(planned.timed))
        return planned, self._encode_audio(session.sample_rate, planned.timed.pcm)

    def _render(self, session: AvatarSession, planned: PlannedFrame) -> npt.NDArray[np.uint8]:
        """Return the image of a `MediaFrame`. Call it in a thread."""
        frame_bgr = self._package.compose_frame(session.render(planned))
        height, width = (n // 2 * 2 for n in frame_bgr.shape[:2])  # chroma has half of the size
        return np.asarray(cv2.cvtColor(frame_bgr[:height, :width], cv2.COLOR_BGR2YUV_I420), np.uint8)

    def _make_message(self, timed: TimedFrame, frame: int, packets: tuple[bytes, ...]) -> MediaFrame:
        size = self._package.width // 2 * 2, self._package.height // 2 * 2
        pcm = timed.pcm.astype("<i2").tobytes()
        pts_ms = frame * FRAME_MS
        place = (frame, pts_ms, 0, 0, *size)
        return MediaFrame(
            WHOLE, timed.is_speaking, timed.generation, *place, b"", pcm, packets=packets, visemes=timed.visemes
        )

    def _encode_audio(self, rate: int, pcm: Samples) -> tuple[bytes, ...]:
        if self._opus is None or self._opus.rate != rate:
            self._opus = OpusPackets(rate)
        return self._opus.encode(pcm)
