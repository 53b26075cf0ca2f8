"""The video and the audio track of a session. Their timestamps are the session's: frame n is at n / 25 s in both.

Both play by the session's clock, also after a stall: what is late by up to 400 ms is sent at once, and what is later is
dropped, video and audio alike.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiortc.mediastreams import VIDEO_CLOCK_RATE, MediaStreamError, MediaStreamTrack

from container.live.frame_clock import FPS, FrameClock
from container.live.webrtc.media_session import AUDIO_DELAY_S, IMAGE_DELAY_S, MediaFrame
from container.live.webrtc.opus_packets import SILENCE
from inference.media.live_frames import OPUS_RATE, OPUS_SAMPLES, Packet, VideoFrame, make_packet, make_video_frame

MAX_WAITING_FRAMES = 12  # then the oldest is dropped
MAX_WAITING_PACKETS = 100  # 2 s, if none is sent: then the oldest are dropped
MAX_LATE_S = 0.4  # of what is sent
PTS_PER_MS = VIDEO_CLOCK_RATE // 1000
FRAME_TICKS = OPUS_RATE // FPS  # of a frame's audio


class PlayedTrack(MediaStreamTrack):
    """A track that plays by the session's clock, `delay_s` after what it plays is due."""

    delay_s: float

    def __init__(self, clock: FrameClock) -> None:
        super().__init__()
        self._clock = clock
        self._pushed = asyncio.Event()
        self.next_frame = 0  # number of the first frame of which nothing was taken
        self.last_pts: int | None = None  # of the last frame that was taken
        self.is_sent = True  # whether its sender requests the next one already

    def stop(self) -> None:
        super().stop()
        self._pushed.set()

    def _next_s(self) -> float | None:
        """Return when the next part is due, in seconds of the session; None if none waits."""
        raise NotImplementedError

    def _late_s(self, due_s: float) -> float:
        return self._clock.elapsed_s() - (due_s + self.delay_s)  # as `_wait` adds them

    async def _wait(self) -> None:
        """Return when a part is due. Raises: MediaStreamError after `stop`."""
        self.is_sent = True
        while self.readyState == "live":
            due_s = self._next_s()
            if due_s is None:
                self._pushed.clear()
                await self._pushed.wait()
            elif self._late_s(due_s) >= 0:
                self.is_sent = False
                return
            else:
                await self._clock.wait_until(due_s + self.delay_s)
        raise MediaStreamError


class AvatarVideoTrack(PlayedTrack):
    """The avatar's frames. One that is too late is dropped if the next one is due, too."""

    kind = "video"
    delay_s = IMAGE_DELAY_S

    def __init__(self, clock: FrameClock, count_drop: Callable[[], None]) -> None:
        """count_drop: called for each frame that is dropped."""
        super().__init__(clock)
        self._count_drop = count_drop
        self._frames: deque[MediaFrame] = deque()

    def push(self, frame: MediaFrame) -> None:
        """Append the next frame. It has an image."""
        if len(self._frames) == MAX_WAITING_FRAMES:
            self._frames.popleft()
            self._count_drop()
        self._frames.append(frame)
        self._pushed.set()

    def drop_from(self, frame: int) -> None:
        """Drop waiting frames from this number on, because speech was interrupted."""
        self._frames = deque(one for one in self._frames if one.frame < frame)

    def _next_s(self) -> float | None:
        return self._frames[0].pts_ms / 1000 if self._frames else None

    async def recv(self) -> VideoFrame:
        """Return the next frame when it is due. Raises: MediaStreamError after `stop`."""
        await self._wait()
        taken = self._frames.popleft()
        while self._late_s(taken.pts_ms / 1000) > MAX_LATE_S and (due_s := self._next_s()) is not None:
            if self._late_s(due_s) < 0:
                break
            self._count_drop()
            taken = self._frames.popleft()
        self.next_frame, self.last_pts = taken.frame + 1, taken.pts_ms * PTS_PER_MS
        assert taken.image is not None
        return make_video_frame(taken.image, self.last_pts, VIDEO_CLOCK_RATE)


class AvatarAudioTrack(PlayedTrack):
    """The audio of the avatar's frames, in Opus packets of 20 ms; silence while nothing is spoken."""

    kind = "audio"
    delay_s = AUDIO_DELAY_S

    def __init__(self, clock: FrameClock) -> None:
        super().__init__(clock)
        self._packets: deque[tuple[int, bytes]] = deque(maxlen=MAX_WAITING_PACKETS)  # timestamp and content

    def push(self, frame: MediaFrame) -> None:
        """Append the audio of the next frame, but for what was taken before its number was given again."""
        start = frame.frame * FRAME_TICKS
        packets = ((start + i * OPUS_SAMPLES, content) for i, content in enumerate(frame.packets))
        self._packets.extend(one for one in packets if self.last_pts is None or one[0] > self.last_pts)
        self._pushed.set()

    def drop_from(self, frame: int) -> None:
        """Drop waiting audio from this frame on, and make that of earlier ones silent: speech was interrupted."""
        kept = ((pts, SILENCE) for pts, _ in self._packets if pts < frame * FRAME_TICKS)
        self._packets = deque(kept, MAX_WAITING_PACKETS)

    def _next_s(self) -> float | None:
        return self._packets[0][0] / OPUS_RATE if self._packets else None

    async def recv(self) -> Packet:
        """Return the next packet when it is due. Raises: MediaStreamError after `stop`."""
        await self._wait()
        while len(self._packets) > 1 and self._late_s(self._packets[0][0] / OPUS_RATE) > MAX_LATE_S:
            self._packets.popleft()
        pts, content = self._packets.popleft()
        self.next_frame, self.last_pts = pts // FRAME_TICKS + 1, pts
        return make_packet(content, pts, OPUS_RATE)
