"""The VP8 encoder of the video track.

aiortc's makes a new codec, and so an intra frame of many packets, whenever the client's estimate of the bandwidth
changes by a tenth. Without congestion that estimate follows the bits that were sent, which follow the mouth: an intra
frame every three seconds, each of which lets browsers skip frames. It also removes the noise of cameras, which rendered
frames do not have, in a fourth of the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpSender
from aiortc.codecs.vpx import Vp8Encoder

from container.live.frame_clock import FPS
from inference.media.live_frames import VideoFrame, open_vp8

START_RATE, MIN_RATE, MAX_RATE = 500_000, 250_000, 1_500_000  # bits per second
LOWER, RAISE = 0.8, 1.5  # of the rate: an estimate below the bits sent lowers it to so much of the estimate
HOLD_S = 10.0  # after a change, before the rate is raised again
SENT_WEIGHT = 0.04  # of a frame in the mean of the bits sent: that of the last second


class AvatarVp8Encoder(Vp8Encoder):
    """Keeps its bit rate unless the client receives less than what is sent.

    The event loop sets estimates, while a thread may encode: all else is changed by `encode` alone.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now, self._rate = now, START_RATE
        self._estimate: deque[int] = deque(maxlen=1)  # the client's, since the last frame; its methods are atomic
        self._last_estimate = 0
        self._sent = 0.0  # bits per second
        self._changed_s = now()

    @property
    def target_bitrate(self) -> int:
        """Bits per second, of the last frame or the one that is being encoded."""
        return self._rate

    @target_bitrate.setter
    def target_bitrate(self, estimate: int) -> None:
        """Take the client's estimate of the bandwidth, which the next frame follows."""
        self._estimate.append(estimate)

    def _follow(self, estimate: int) -> None:
        """Follow an estimate.

        At the start of a connection it rises more slowly than the bits sent: only one that falls shows congestion.
        """
        if estimate < min(self._sent, self._last_estimate):
            self._set_rate(round(estimate * LOWER))
        elif estimate > self._rate * RAISE and self._now() - self._changed_s > HOLD_S:
            self._set_rate(round(self._rate * RAISE))
        self._last_estimate = estimate

    def _set_rate(self, rate: int) -> None:
        rate = max(MIN_RATE, min(rate, MAX_RATE))
        if rate != self._rate:
            self._rate, self._changed_s, self._sent = rate, self._now(), 0.0

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Return the payloads of a frame, and its timestamp. Called in a thread, one frame at a time."""
        assert isinstance(frame, VideoFrame)
        if self._estimate:
            self._follow(self._estimate.popleft())
        codec = self.codec
        if codec is None or (codec.width, codec.height, codec.bit_rate) != (frame.width, frame.height, self._rate):
            self.codec = open_vp8(frame.width, frame.height, self._rate)
        payloads, timestamp = super().encode(frame, force_keyframe)
        self._sent += SENT_WEIGHT * (8 * FPS * sum(map(len, payloads)) - self._sent)
        return payloads, timestamp


def use_avatar_encoder(sender: RTCRtpSender) -> None:
    """Make the sender of a video track that was negotiated as VP8 use `AvatarVp8Encoder`."""
    vars(sender)["_RTCRtpSender__encoder"] = AvatarVp8Encoder()
