"""The VP8 encoder of the video track: FFmpeg's libvpx through aiortc's packets."""

from __future__ import annotations

import numpy as np
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor

from container.live.webrtc.video_encoder import HOLD_S, MAX_RATE, MIN_RATE, START_RATE, AvatarVp8Encoder
from inference.media.live_frames import make_video_frame


class Encoding:
    """An encoder, its clock, and frames of noise, which take all bits that they are given."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.encoder = AvatarVp8Encoder(lambda: self.now_s)
        self._rng, self._n = np.random.default_rng(1), 0

    def encode(self, *, force: bool = False) -> bool:
        """Encode a frame; return whether it is an intra frame."""
        image = self._rng.integers(16, 235, (192, 128), np.uint8)
        payloads, timestamp = self.encoder.encode(make_video_frame(image, self._n * 3600, 90_000), force)
        assert timestamp == self._n * 3600
        self._n, self.now_s = self._n + 1, self.now_s + 0.04
        _, content = VpxPayloadDescriptor.parse(payloads[0])
        return content[0] & 1 == 0  # RFC 6386, 9.1: 0 for key frames


@pytest.fixture
def encoding() -> Encoding:
    encoding = Encoding()
    assert [encoding.encode() for _ in range(30)] == [True, *[False] * 29]
    return encoding


def test_an_estimate_above_what_is_sent_changes_nothing(encoding: Encoding):
    for estimate in (START_RATE * 4, START_RATE * 2, START_RATE * 3):
        encoding.encoder.target_bitrate = estimate
        assert not encoding.encode()
    assert encoding.encode(force=True)  # the client requests one after a loss


def test_congestion_lowers_the_rate_and_its_end_raises_it(encoding: Encoding):
    encoding.encoder.target_bitrate = START_RATE // 8
    assert encoding.encoder.target_bitrate == MIN_RATE
    assert encoding.encode()  # a codec of another rate
    encoding.encoder.target_bitrate = MAX_RATE
    assert encoding.encoder.target_bitrate == MIN_RATE  # it waits, so that the rate does not swing
    for _ in range(10):
        encoding.now_s += HOLD_S + 1
        encoding.encoder.target_bitrate = 10 * MAX_RATE
    assert encoding.encoder.target_bitrate == MAX_RATE
