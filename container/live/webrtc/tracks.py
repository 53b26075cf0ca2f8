"""The video and the audio track of a session. Their timestamps are the session's: frame n is at n / 25 s in both."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from aiortc.mediastreams import AUDIO_PTIME, VIDEO_CLOCK_RATE, MediaStreamError, MediaStreamTrack

from container.live.webrtc.media_session import MediaFrame
from container.live.webrtc.opus_packets import SILENCE
from inference.media.live_frames import OPUS_RATE, OPUS_SAMPLES, Packet, VideoFrame, make_packet, make_video_frame

MAX_PACED_PACKETS = (
    2  # of a frame; if more wait, one is sent at once, so that audio keeps up with video after a late frame
)
MAX_WAITING_PACKETS = 100  # 2 s, if none is sent: then the oldest are dropped
PTS_PER_MS = VIDEO_CLOCK_RATE // 1000


class AvatarVideoTrack(MediaStreamTrack):
    """The avatar's frames. One that is not encoded yet when the next one is pushed is dropped."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._frame: MediaFrame | None = None
        self._pushed = asyncio.Event()
        self.n_dropped = 0
        self.last_pts: int | None = None  # of the last frame that was taken
        self.is_sent = True  # whether its sender requests the next one already

    def push(self, frame: MediaFrame) -> None:
        self.n_dropped += self._frame is not None
        self._frame = frame
        self._pushed.set()

    def drop_speech(self) -> None:
        """Drop a waiting frame of speech that was interrupted."""
        if self._frame is not None and self._frame.is_speaking:
            self._frame = None

    def stop(self) -> None:
        super().stop()
        self._pushed.set()

    async def recv(self) -> VideoFrame:
        """Return the next frame when there is one. Raises: MediaStreamError after `stop`."""
        self.is_sent = True
        while self._frame is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._pushed.clear()
            await self._pushed.wait()
        waiting, self._frame = self._frame, None
        self.is_sent, self.last_pts = False, waiting.pts_ms * PTS_PER_MS
        return make_video_frame(waiting.image, self.last_pts, VIDEO_CLOCK_RATE)


class AvatarAudioTrack(MediaStreamTrack):
    """The audio of the avatar's frames, in Opus packets of 20 ms; silence while nothing is spoken."""

    kind = "audio"

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._now, self._sleep = now, sleep
        self._packets: deque[tuple[int, bytes]] = deque(maxlen=MAX_WAITING_PACKETS)  # timestamp and content
        self._pushed = asyncio.Event()
        self._next_s = 0.0  # when the next packet is due, by the clock
        self.last_pts: int | None = None  # as those of the video track
        self.is_sent = True

    def push(self, frame: MediaFrame) -> None:
        """Append the audio of the next frame."""
        start = frame.pts_ms * OPUS_RATE // 1000
        self._packets.extend((start + i * OPUS_SAMPLES, content) for i, content in enumerate(frame.packets))
        self._pushed.set()

    def drop_speech(self) -> None:
        """Replace audio that was not sent yet by silence, because its speech was interrupted."""
        self._packets = deque(((pts, SILENCE) for pts, _ in self._packets), MAX_WAITING_PACKETS)

    def stop(self) -> None:
        super().stop()
        self._pushed.set()

    async def recv(self) -> Packet:
        """Return the next packet when it is due. Raises: MediaStreamError after `stop`."""
        self.is_sent = True
        while not self._packets:
            if self.readyState != "live":
                raise MediaStreamError
            self._pushed.clear()
            await self._pushed.wait()
        wait_s = self._next_s - self._now()
        if wait_s > 0 and len(self._packets) <= MAX_PACED_PACKETS:
            await self._sleep(wait_s)
            self._next_s += AUDIO_PTIME
        else:
            self._next_s = self._now() + AUDIO_PTIME
        pts, content = self._packets.popleft()
        self.is_sent, self.last_pts = False, pts
        return make_packet(content, pts, OPUS_RATE)
