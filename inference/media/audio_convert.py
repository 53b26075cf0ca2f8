"""Conversion of decoded audio to 16-bit samples at one rate, each at its own time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from inference.media.audio_clock import PlacedAudio

Samples = npt.NDArray[np.int16]

# Rates that AAC supports, so that writing never has to resample again.
AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MAX_CHANNELS = 2
INTEGERS, FLOATS = "s16", "flt"  # FFmpeg's names of packed samples
PACKED_FLOATS = {"flt": np.float32, "dbl": np.float64}
SILENCE_S = 1  # of silence made at a time


@dataclass(frozen=True)
class AudioFormat:
    """Samples a second of each channel, and the number of interleaved channels."""

    rate: int
    n_channels: int = 1


class AudioConverter:
    """Converts frames to a format. A new resampler continues if they change their own, or are not contiguous."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[int, str, str] | None = None  # rate, sample format and layout of the frames
        self.n_out = 0  # samples of each channel emitted so far
        self._n_skipped = 0  # of the next samples, those that overlap the previous ones

    def convert(self, placed: PlacedAudio) -> Iterator[Samples]:
        """Yield the samples that a frame completes: (n,) int16, channels interleaved."""
        frame = placed.frame
        source = (frame.sample_rate, frame.format.name, frame.layout.name)
        if source != self._source or placed.at_s is not None:
            yield from self.flush()
            layout = "mono" if self._format.n_channels == 1 else "stereo"
            # Mixed as integers, surround sound would be scaled down until no mix can clip: speech by 11 dB.
            samples = FLOATS if frame.layout.nb_channels > MAX_CHANNELS else INTEGERS
            self._resampler = av.AudioResampler(format=samples, layout=layout, rate=self._format.rate)
            self._source = source
        if placed.at_s is not None:
            yield from self._move_to(round(placed.at_s * self._format.rate))
        assert self._resampler is not None
        frame = without_nan(frame)
        frame.pts = None  # `placed` has what counts; the resampler would stretch the audio by it
        yield from self._emit(self._resampler.resample(frame))

    def flush(self) -> Iterator[Samples]:
        """Yield the samples that the resampler still holds."""
        if self._resampler is not None:
            yield from self._emit(self._resampler.resample(None))
            self._resampler = None

    def _move_to(self, position: int) -> Iterator[Samples]:
        """Yield silence up to a position in samples; or skip what follows as far as it is in the past."""
        self._n_skipped = max(self.n_out - position, 0)
        while (n_missing := position - self.n_out) > 0:
            n_samples = min(n_missing, SILENCE_S * self._format.rate)
            self.n_out += n_samples
            yield np.zeros(n_samples * self._format.n_channels, np.int16)

    def _emit(self, frames: Iterable[av.AudioFrame]) -> Iterator[Samples]:
        for frame in frames:
            samples = to_samples(frame)
            if self._n_skipped:
                n_skipped = min(self._n_skipped, frame.samples)
                self._n_skipped -= n_skipped
                samples = samples[n_skipped * self._format.n_channels :]
            self.n_out += len(samples) // self._format.n_channels
            if len(samples):
                yield samples


def convert_audio(
    placed: Iterable[PlacedAudio], audio_format: AudioFormat | None = None
) -> Iterator[tuple[AudioFormat, Samples]]:
    """Convert frames to a format, by default the lossless one of the first frame.

    A resampler returns nothing for a few samples; the result is then one sample of silence.
    """
    converter: AudioConverter | None = None
    for one in placed:
        audio_format = audio_format or lossless_format(one.frame)
        converter = converter or AudioConverter(audio_format)
        for block in converter.convert(one):
            yield audio_format, block
    if converter is None or audio_format is None:
        return
    for block in converter.flush():
        yield audio_format, block
    if converter.n_out == 0:
        yield audio_format, np.zeros(audio_format.n_channels, np.int16)


def lossless_format(frame: av.AudioFrame) -> AudioFormat:
    """Return the format that loses least: the next higher rate of AAC, or its highest; one channel or two."""
    rate = next((rate for rate in AAC_RATES if rate >= frame.sample_rate), AAC_RATES[-1])
    return AudioFormat(rate, min(max(frame.layout.nb_channels, 1), MAX_CHANNELS))


def without_format(blocks: Iterable[tuple[AudioFormat, Samples]]) -> Iterator[Samples]:
    return (block for _, block in blocks)


def without_nan(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the frame with silence for what is not a number, which would be converted to the loudest sample.

    Only packed floats may have it: they are stored as such, those of decoders are planar.
    """
    if frame.format.name not in PACKED_FLOATS:
        return frame
    samples = np.frombuffer(memoryview(frame.planes[0]), PACKED_FLOATS[frame.format.name])
    if not np.isnan(samples).any():
        return frame
    samples = samples[: frame.samples * frame.layout.nb_channels].reshape(1, -1)
    mended = av.AudioFrame.from_ndarray(np.nan_to_num(samples, posinf=1, neginf=-1), frame.format.name, frame.layout)
    mended.sample_rate = frame.sample_rate
    return mended


def to_samples(frame: av.AudioFrame) -> Samples:
    """Return the samples of a packed frame as 16 bits: a view of a frame that has them."""
    packed, n_values = memoryview(frame.planes[0]), frame.samples * frame.layout.nb_channels
    if frame.format.name == INTEGERS:
        return np.frombuffer(packed, np.int16, n_values)
    scaled = np.frombuffer(packed, np.float32, n_values) * 32768
    return np.asarray(np.clip(np.rint(scaled), -32768, 32767), np.int16)
