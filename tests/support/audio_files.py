"""Audio files made by the tests."""

from __future__ import annotations

import io
import wave
from fractions import Fraction

import av
import numpy as np

RATE = 16000
CODECS = {
    "wav": "pcm_s16le",
    "mp3": "libmp3lame",
    "ipod": "aac",  # .m4a
    "ogg": "libopus",
    "flac": "flac",
    "mov": "pcm_s16le",
    "webm": "libopus",
    "mpegts": "mp2",
}


def make_tone(seconds: float, rate: int = 48000, hz: float = 440, n_channels: int = 1) -> np.ndarray:
    """Return a tone on the left channel, silence on the others: (channels, N) int16."""
    channels = np.zeros((n_channels, round(seconds * rate)), np.int16)
    channels[0] = 12000 * np.sin(2 * np.pi * hz * np.arange(channels.shape[1]) / rate)
    return channels


def encode_audio(channels: np.ndarray, rate: int = 48000, container: str = "wav") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(CODECS[container], rate=rate)
        stream.layout = "mono" if len(channels) == 1 else "stereo"
        if channels.size:
            packed = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(channels.T).reshape(1, -1), format="s16", layout=stream.layout.name
            )
            packed.sample_rate, packed.pts, packed.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(format=stream.format.name, layout=stream.layout.name, rate=rate)
            for piece in resampler.resample(packed) + resampler.resample(None):
                out.mux(stream.encode(piece))
        out.mux(stream.encode())
    return buffer.getvalue()


def wav_without_samples() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
    return buffer.getvalue()


def pitch_of(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))
