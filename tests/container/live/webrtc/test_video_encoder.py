"""The VP8 encoder of the video track: FFmpeg's libvpx through aiortc's packets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiortc.codecs.vpx import Vp8Encoder, VpxPayloadDescriptor

from container.live.webrtc.video_encoder import HOLD_S, MAX_RATE, MIN_RATE, START_RATE, AvatarVp8Encoder
from inference.media.live_frames import MAX_GOP, make_video_frame


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


def test_an_estimate_that_rises_slowly_changes_nothing(encoding: Encoding):
    """As at the start of a connection, whose first frames are small."""
    for estimate in range(START_RATE // 4, START_RATE, START_RATE // 50):
        encoding.encoder.target_bitrate = estimate
        assert not encoding.encode()
    assert encoding.encoder.target_bitrate == START_RATE


def test_congestion_lowers_the_rate_and_its_end_raises_it(encoding: Encoding):
    encoding.encoder.target_bitrate = START_RATE
    assert not encoding.encode()
    encoding.encoder.target_bitrate = START_RATE // 8
    assert encoding.encode()  # a codec of another rate
    assert encoding.encoder.target_bitrate == MIN_RATE
    encoding.encoder.target_bitrate = MAX_RATE
    assert not encoding.encode()  # it waits, so that the rate does not swing
    assert encoding.encoder.target_bitrate == MIN_RATE
    for _ in range(10):
        encoding.now_s += HOLD_S + 1
        encoding.encoder.target_bitrate = 10 * MAX_RATE
        encoding.encode()
    assert encoding.encoder.target_bitrate == MAX_RATE


def test_an_estimate_during_a_frame_counts_from_the_next_one(encoding: Encoding, monkeypatch: pytest.MonkeyPatch):
    """Otherwise aiortc would make a codec of its own for this frame."""
    encode = Vp8Encoder.encode

    def encode_later(self: Vp8Encoder, *args: Any) -> tuple[list[bytes], int]:
        self.target_bitrate = START_RATE // 8  # by the event loop
        return encode(self, *args)

    encoding.encoder.target_bitrate = START_RATE
    encoding.encode()
    codec = encoding.encoder.codec
    monkeypatch.setattr(Vp8Encoder, "encode", encode_later)
    assert not encoding.encode()
    assert encoding.encoder.codec is codec
    assert encoding.encode()
    assert encoding.encoder.codec is not None
    assert (encoding.encoder.codec.bit_rate, encoding.encoder.codec.gop_size) == (MIN_RATE, MAX_GOP)
