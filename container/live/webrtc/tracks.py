"""The video and the audio track of a session. Their timestamps are the session's: frame n is at n / 25 s in both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
from aiortc.mediastreams import AUDIO_PTIME, VIDEO_CLOCK_RATE, MediaStreamError, MediaStreamTrack

from container.live.send_queue import SlowClient
from container.live.webrtc.media_session import MediaFrame
from inference.media.live_frames import AudioFrame, RateConverter, VideoFrame, make_audio_frame, make_video_frame

AUDIO_RATE = 48_000  # of Opus, Hz
PACKET_SAMPLES = round(AUDIO_PTIME * AUDIO_RATE)  # 960: 20 ms
SAMPLE_BYTES = 2
PACKET_BYTES = PACKET_SAMPLES * SAMPLE_BYTES
MAX_PACED_PACKETS = (
    2  # of a frame; if more wait, one is sent at once, so that audio keeps up with video after a late frame
)
MAX_WAITING_BYTES = 2 * AUDIO_RATE * SAMPLE_BYTES  # 2 s, if packets are not sent at all
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
        self.is_sent = True  # whether its sender has asked for the next one

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
    """The audio of the avatar's frames, in packets of 20 ms; silence while nothing is spoken."""

    kind = "audio"

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._now, self._sleep = now, sleep
        self._samples = bytearray()  # mono int16 at 48 kHz
        self._pushed = asyncio.Event()
        self._resampler: AudioResampler | None = None
        self._next_s = 0.0  # when the next packet is due, by the clock
        self._pts: int | None = None  # of the next packet
        self.last_pts: int | None = None  # as those of the video track
        self.is_sent = True

    def push(self, frame: MediaFrame) -> None:
        """Append the audio of the next frame. Raises: SlowClient if too much waits."""
        if self._pts is None:
            self._pts = frame.pts_ms * AUDIO_RATE // 1000
        if self._resampler is None or self._resampler.rate != frame.sample_rate:
            self._resampler = AudioResampler(frame.sample_rate)
        self._samples += self._resampler.push(frame.pcm)
        if len(self._samples) > MAX_WAITING_BYTES:
            raise SlowClient(
                f"{len(self._samples)} bytes of audio wait to be sent; at most {MAX_WAITING_BYTES} expected"
            )
        self._pushed.set()

    def drop_speech(self) -> None:
        """Replace audio that was not sent yet by silence, because its speech was interrupted."""
        self._samples[:] = bytes(len(self._samples))

    def stop(self) -> None:
        super().stop()
        self._pushed.set()

    async def recv(self) -> AudioFrame:
        """Return the next packet when it is due. Raises: MediaStreamError after `stop`."""
        self.is_sent = True
        while len(self._samples) < PACKET_BYTES:
            if self.readyState != "live":
                raise MediaStreamError
            self._pushed.clear()
            await self._pushed.wait()
        wait_s = self._next_s - self._now()
        if wait_s > 0 and len(self._samples) <= MAX_PACED_PACKETS * PACKET_BYTES:
            await self._sleep(wait_s)
            self._next_s += AUDIO_PTIME
        else:
            self._next_s = self._now() + AUDIO_PTIME
        samples = np.frombuffer(bytes(self._samples[:PACKET_BYTES]), np.int16)
        del self._samples[:PACKET_BYTES]
        assert self._pts is not None
        packet = make_audio_frame(samples, AUDIO_RATE, self._pts)
        self.is_sent, self.last_pts = False, self._pts
        self._pts += PACKET_SAMPLES
        return packet


class AudioResampler:
    """Converts a stream of mono int16 samples to 48 kHz, 1,920 samples for each frame of the avatar.

    FFmpeg's resampler returns its first samples late; as many zeros precede them, once.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._converter = RateConverter(AUDIO_RATE)
        self._n_in = self._n_out = 0

    def push(self, pcm: bytes) -> bytes:
        """Return the samples at 48 kHz that these complete."""
        if self.rate == AUDIO_RATE:
            return pcm
        samples = np.frombuffer(pcm, "<i2").astype(np.int16, copy=False)
        found = self._converter.push(make_audio_frame(samples, self.rate, self._n_in)).astype("<i2").tobytes()
        self._n_in += len(samples)
        if self._n_out == 0:
            n_expected = round(self._n_in * AUDIO_RATE / self.rate) * SAMPLE_BYTES
            found = bytes(max(n_expected - len(found), 0)) + found
        self._n_out += len(found) // SAMPLE_BYTES
        return found
