"""Frames and packets of live media, made from arrays and read into them: no file is opened here."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt

VideoFrame: TypeAlias = av.VideoFrame
AudioFrame: TypeAlias = av.AudioFrame
Packet: TypeAlias = "av.Packet[Any]"
OPUS_RATE = 48_000  # Hz
OPUS_SAMPLES = 960  # of a packet: 20 ms
MAX_GOP = 1 << 30  # frames: no intra frame but the first and those that are requested
OPUS_BIT_RATE = 64_000  # of mono speech; transparent


def make_video_frame(image_i420: npt.NDArray[np.uint8], pts: int, clock_rate: int) -> VideoFrame:
    """Return a frame of (H * 3 / 2, W) uint8 planar YUV 4:2:0. pts: its time, in units of the clock's rate (Hz)."""
    frame = av.VideoFrame.from_ndarray(image_i420, format="yuv420p")
    frame.pts, frame.time_base = pts, Fraction(1, clock_rate)
    return frame


def make_audio_frame(samples: npt.NDArray[np.int16], rate: int, pts: int) -> AudioFrame:
    """Return a frame of (n,) int16 mono samples. pts: the number of samples before it."""
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


class RateConverter:
    """Converts a stream of audio frames of one kind to mono int16 samples at a rate, by FFmpeg's resampler."""

    def __init__(self, rate: int) -> None:
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)

    def push(self, frame: AudioFrame) -> npt.NDArray[np.int16]:
        """Return the samples that a frame completes: (n,) int16."""
        parts = [part.to_ndarray().reshape(-1) for part in self._resampler.resample(frame)]
        return np.concatenate([np.zeros(0, np.int16), *parts]).astype(np.int16, copy=False)


class OpusEncoder:
    """Encodes mono samples at 48 kHz as Opus, one packet for each 20 ms."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "w")
        assert isinstance(self._codec, av.AudioCodecContext)
        self._codec.sample_rate, self._codec.bit_rate = OPUS_RATE, OPUS_BIT_RATE
        self._codec.format, self._codec.layout = "s16", "mono"
        self._codec.options = {"application": "voip", "frame_duration": "20"}
        self._n_samples = 0

    def encode(self, samples: npt.NDArray[np.int16]) -> bytes:
        """Return the packet of `OPUS_SAMPLES` samples."""
        frame = make_audio_frame(samples, OPUS_RATE, self._n_samples)
        self._n_samples += len(samples)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


def open_vp8(width: int, height: int, bit_rate: int) -> av.VideoCodecContext:
    """Open a VP8 encoder for real time, of a constant bit rate (bits per second), with intra frames on request alone.

    Source of the options: aiortc codecs/vpx.py. Deliberately different: frames have no noise to remove, and one thread.
    """
    codec = av.CodecContext.create("libvpx", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.bit_rate, codec.gop_size, codec.qmin, codec.qmax = bit_rate, MAX_GOP, 2, 56
    codec.thread_count = 1
    codec.options = {
        "bufsize": str(bit_rate),  # a second
        "minrate": str(bit_rate),  # with maxrate: a constant rate
        "maxrate": str(bit_rate),
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "overshoot-pct": "15",
        "undershoot-pct": "100",
        "static-thresh": "1",
    }
    return codec


def make_packet(content: bytes, pts: int, clock_rate: int) -> Packet:
    """Return an encoded packet. pts: its time, in units of the clock's rate (Hz)."""
    packet = av.Packet(content)
    packet.pts, packet.time_base = pts, Fraction(1, clock_rate)
    return packet
