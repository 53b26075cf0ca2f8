from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import pytest

from container.live.webrtc.opus_packets import SILENCE, OpusPackets


def decode(packets: list[bytes]) -> np.ndarray:
    """Return the samples of packets, (n,) at 48 kHz, of the left channel."""
    codec = av.CodecContext.create("libopus", "r")
    codec.format, codec.layout, codec.sample_rate = "s16", "stereo", 48_000  # as aiortc decodes it
    frames = [frame for packet in packets for frame in codec.decode(av.Packet(packet))]
    return np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames]).astype(int)


@pytest.mark.parametrize("rate", [4_000, 4_001, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_each_frame_has_two_packets_of_its_audio(rate: int):
    opus = OpusPackets(rate)
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(4 * rate) / rate)).astype(np.int16)
    edges = np.arange(101) * rate // 25
    packets = [packet for start, end in pairwise(edges) for packet in opus.encode(tone[start:end])]
    assert len(packets) == 200
    assert all(packets)
    found = decode(packets)[48_000:144_000]
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert abs(int(spectrum.argmax()) * 48_000 / len(found) - 440) < 1
    assert 7000 < np.abs(found).max() < 9000
    assert len(opus._samples) <= 64  # nothing is left behind, so the audio does not drift


def test_the_packet_of_silence_is_silent():
    found = decode([SILENCE] * 5)
    assert len(found) >= 4 * 960
    assert not found.any()
