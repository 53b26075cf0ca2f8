"""Decoding of untrusted audio, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import av
import av.error
import numpy as np
import numpy.typing as npt

from inference.errors import MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media.files import Source, open_bytes
from inference.media.limits import MediaLimits
from inference.media.open import open_container
from inference.media.truncation import LOST_END_S, LOST_END_SHARE

Samples = npt.NDArray[np.int16]

MAX_RATE = 768_000  # samples a second; a higher rate is an error, and would take memory for each second allowed
# Raw streams declare no duration, or FFmpeg estimates one from the bit rate of the first packets.
FORMATS_WITHOUT_DURATION = ("mp3", "aac", "amr", "ac3", "flac", "mpeg", "mpegts", "ogg")


# Rates that AAC supports, so that writing never has to resample again.
AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MAX_CHANNELS = 2


@dataclass(frozen=True)
class AudioFormat:
    """Samples a second of each channel, and the number of interleaved channels."""

    rate: int
    n_channels: int = 1


def read_audio(source: Source, rate: int, limits: MediaLimits | None = None) -> Samples:
    """Decode all audio of an audio or video file: (N,) int16, mono, `rate` samples a second.

    source: a path, or the bytes of the file. Silence is valid audio.
    Raises: NoAudio if the file has no audio stream or no samples, MediaNotFound, MediaTooLarge, UnsupportedMedia,
    MediaTruncated.
    """
    limits = limits or MediaLimits()
    with open_bytes(source, limits) as (file, name):
        blocks = without_format(decode_blocks(file, name, AudioFormat(rate), limits))
        samples = np.concatenate([np.zeros(0, np.int16), *blocks])
    if len(samples) == 0:
        raise NoAudio(f"{name}: its audio has no samples")
    return samples


def without_format(blocks: Iterator[tuple[AudioFormat, Samples]]) -> Iterator[Samples]:
    return (block for _, block in blocks)


def decode_blocks(
    file: IO[bytes], name: str, audio_format: AudioFormat | None, limits: MediaLimits
) -> Iterator[tuple[AudioFormat, Samples]]:
    """Decode the audio of an open file block by block, each (n,) int16 with interleaved channels.

    audio_format: the format to convert to; None keeps the file's own as far as AAC supports it. All blocks share it.
    """
    with open_container(file, name, limits) as container:
        stream = find_stream(container, name)
        declared_s = container.duration / av.time_base if container.duration else None
        if declared_s is not None and declared_s > limits.max_duration_s:
            raise MediaTooLarge(
                f"{name}: declares {declared_s:.1f} s of audio; at most {limits.max_duration_s:g} s expected"
            )
        n_samples, rate = 0, 1
        for found, block in resample(decode(container, stream, name), audio_format):
            rate = found.rate
            n_samples += len(block) // found.n_channels
            if n_samples > limits.max_duration_s * rate:
                raise MediaTooLarge(f"{name}: over {limits.max_duration_s:g} s of audio; that is the limit")
            yield found, block
        check_end(container, stream, n_samples / rate, name)


def find_stream(container: av.container.InputContainer, name: str) -> av.audio.stream.AudioStream:
    """Return the first audio stream. Raises: NoAudio, UnsupportedMedia."""
    streams = container.streams.audio
    if not streams:
        found = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
        raise NoAudio(f"{name}: contains {' and '.join(found)} only ({container.format.name}); expected audio")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise UnsupportedMedia(f"{name}: its audio is in an unknown codec")
    return decodable[0]


def decode(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, name: str
) -> Iterator[av.AudioFrame]:
    """Yield every decodable frame of audio; broken packets are skipped.

    Raises: UnsupportedMedia if there were packets and none could be decoded.
    """
    stream.codec_context.thread_count = 1
    n_packets, n_frames = 0, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            n_packets += packet.size > 0
            for frame in packet.decode():
                check_frame(frame, name)
                n_frames += 1
                yield frame
        except (StopIteration, EOFError):
            break
        except MemoryError:
            raise  # PyAV's is also an FFmpegError, but no broken packet
        except av.error.InvalidDataError:
            continue
        except av.error.FFmpegError:
            break  # broken from here on: `check_end` reports a missing end
    if n_packets and not n_frames:
        raise UnsupportedMedia(f"{name}: no audio could be decoded ({stream.codec_context.name})")


def check_frame(frame: av.AudioFrame, name: str) -> None:
    """Raise UnsupportedMedia if the sample rate is impossible."""
    if not 0 < frame.sample_rate <= MAX_RATE:
        raise UnsupportedMedia(f"{name}: audio of {frame.sample_rate} samples a second; at most {MAX_RATE} expected")


def resample(
    frames: Iterator[av.AudioFrame], audio_format: AudioFormat | None
) -> Iterator[tuple[AudioFormat, Samples]]:
    """Convert frames to a format, by default the lossless one of the first frame.

    If the file changes its own format, a new resampler continues.
    """
    resampler: av.AudioResampler | None = None
    last: tuple[int, str, str] | None = None
    for frame in frames:
        audio_format = audio_format or lossless_format(frame)
        found = (frame.sample_rate, frame.format.name, frame.layout.name)
        if found != last:
            yield from flush(resampler, audio_format)
            layout = "mono" if audio_format.n_channels == 1 else "stereo"
            resampler, last = av.AudioResampler(format="s16", layout=layout, rate=audio_format.rate), found
        assert resampler is not None
        frame.pts = None  # timestamps may jump in an edited file; samples are contiguous
        yield from ((audio_format, to_samples(block)) for block in resampler.resample(frame))
    if audio_format is not None:
        yield from flush(resampler, audio_format)


def lossless_format(frame: av.AudioFrame) -> AudioFormat:
    """Return the format that loses least: the next higher rate of AAC, or its highest; one channel or two."""
    rate = next((rate for rate in AAC_RATES if rate >= frame.sample_rate), AAC_RATES[-1])
    return AudioFormat(rate, min(max(frame.layout.nb_channels, 1), MAX_CHANNELS))


def flush(resampler: av.AudioResampler | None, audio_format: AudioFormat) -> Iterator[tuple[AudioFormat, Samples]]:
    """Yield the samples that a resampler still holds."""
    if resampler is not None:
        yield from ((audio_format, to_samples(block)) for block in resampler.resample(None))


def to_samples(frame: av.AudioFrame) -> Samples:
    """Return the samples of a packed 16-bit frame, without a copy."""
    packed = memoryview(frame.planes[0])
    return np.frombuffer(packed, np.int16, frame.samples * frame.layout.nb_channels)


def check_end(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, reached_s: float, name: str
) -> None:
    """Raise MediaTruncated if the file contains clearly less audio than it declares."""
    if container.format.name.startswith(FORMATS_WITHOUT_DURATION) or not stream.duration or not stream.time_base:
        return
    declared_s = float(stream.duration * stream.time_base)
    if declared_s - reached_s > max(LOST_END_S, LOST_END_SHARE * declared_s):
        raise MediaTruncated(
            f"{name}: its audio ends after {reached_s:.2f} s of the {declared_s:.2f} s it declares; "
            "the file is truncated or damaged"
        )
