"""The sound of untrusted media: bounded, of one voice, at one rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import av
import av.error
import numpy as np
import numpy.typing as npt

from inference.errors import MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media.limits import MediaLimits
from inference.media.open import LOST_END_S, LOST_END_SHARE, Source, open_bytes, open_container

Samples = npt.NDArray[np.int16]

# How the jobs ask for sound: `read_sound` here, or `MediaChild.read_sound` in another process.
SoundDoor = Callable[[Source, int, MediaLimits | None], Samples]

MAX_RATE = 768_000  # samples a second; more are no sound, and would take memory for each second of limit
# Raw streams declare no length, or one guessed from the first packets' bit rate.
FORMATS_WITHOUT_DURATION = ("mp3", "aac", "amr", "ac3", "flac", "mpeg", "mpegts", "ogg")


# Rates that AAC has, so that nothing has to be resampled again when it is written.
AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MOST_CHANNELS = 2


@dataclass(frozen=True)
class SoundForm:
    """Samples a second, and how many of them stand side by side."""

    rate: int
    n_channels: int = 1


def read_sound(source: Source, rate: int, limits: MediaLimits | None = None) -> Samples:
    """All of a file's sound, or of a film's: (N,) int16, mono, `rate` samples a second.

    source: a path, or the bytes of the file. Silence is sound as any other.
    Raises: NoAudio for a file without sound or without a sample of it, MediaNotFound, MediaTooLarge,
    UnsupportedMedia, MediaTruncated.
    """
    limits = limits or MediaLimits()
    with open_bytes(source, limits) as (file, name):
        return join_samples(without_form(read_pieces(file, name, SoundForm(rate), limits)), name)


def join_samples(pieces: Iterator[Samples], name: str) -> Samples:
    """Raises: NoAudio where there are none."""
    samples = np.concatenate([np.zeros(0, np.int16), *pieces])
    if len(samples) == 0:
        raise NoAudio(f"{name}: its sound has no sample")
    return samples


def without_form(pieces: Iterator[tuple[SoundForm, Samples]]) -> Iterator[Samples]:
    return (piece for _, piece in pieces)


def read_pieces(
    file: IO[bytes], name: str, form: SoundForm | None, limits: MediaLimits
) -> Iterator[tuple[SoundForm, Samples]]:
    """The sound of an open file piece by piece, each (n,) int16, the channels of a moment side by side.

    form: what it is made into; None: what it is, as far as AAC can hold it. The same for all pieces.
    """
    with open_container(file, name, limits) as container:
        stream = find_sound(container, name)
        declared_s = container.duration / av.time_base if container.duration else None
        if declared_s is not None and declared_s > limits.max_duration_s:
            raise MediaTooLarge(
                f"{name}: declares {declared_s:.1f} s of sound; at most {limits.max_duration_s:g} s expected"
            )
        n_samples, rate = 0, 1
        for found, piece in resample(decode(container, stream, name), form):
            rate = found.rate
            n_samples += len(piece) // found.n_channels
            if n_samples > limits.max_duration_s * rate:
                raise MediaTooLarge(f"{name}: over {limits.max_duration_s:g} s of sound; that is the limit")
            yield found, piece
        check_end(container, stream, n_samples / rate, name)


def find_sound(container: av.container.InputContainer, name: str) -> av.audio.stream.AudioStream:
    """The first stream of sound. Raises: NoAudio, UnsupportedMedia."""
    streams = container.streams.audio
    if not streams:
        found = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
        raise NoAudio(f"{name}: holds {' and '.join(found)} only ({container.format.name}); expected sound")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise UnsupportedMedia(f"{name}: its sound is in a codec that is not known")
    return known[0]


def decode(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, name: str
) -> Iterator[av.AudioFrame]:
    """Every frame of sound that decodes; broken packets are skipped.

    Raises: UnsupportedMedia where packets came and none could be decoded.
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
            raise  # PyAV's is an FFmpegError besides: no broken packet
        except av.error.InvalidDataError:
            continue
        except av.error.FFmpegError:
            break  # broken from here on: `check_end` sees what is missing
    if n_packets and not n_frames:
        raise UnsupportedMedia(f"{name}: no sound could be decoded ({stream.codec_context.name})")


def check_frame(frame: av.AudioFrame, name: str) -> None:
    """Raises: UnsupportedMedia for a rate that no sound has."""
    if not 0 < frame.sample_rate <= MAX_RATE:
        raise UnsupportedMedia(f"{name}: sound of {frame.sample_rate} samples a second; at most {MAX_RATE} expected")


def resample(frames: Iterator[av.AudioFrame], form: SoundForm | None) -> Iterator[tuple[SoundForm, Samples]]:
    """The frames in that form, else in the first one's; where the file changes its own, a resampler starts anew."""
    resampler: av.AudioResampler | None = None
    last: tuple[int, str, str] | None = None
    for frame in frames:
        form = form or kept_form(frame)
        found = (frame.sample_rate, frame.format.name, frame.layout.name)
        if found != last:
            yield from flush(resampler, form)
            layout = "mono" if form.n_channels == 1 else "stereo"
            resampler, last = av.AudioResampler(format="s16", layout=layout, rate=form.rate), found
        assert resampler is not None
        frame.pts = None  # its clock may jump, where a file was cut together; samples follow one another
        yield from ((form, to_samples(piece)) for piece in resampler.resample(frame))
    if form is not None:
        yield from flush(resampler, form)


def kept_form(frame: av.AudioFrame) -> SoundForm:
    """The form that loses least: AAC's next rate, the highest where there is none; one voice or two."""
    rate = next((rate for rate in AAC_RATES if rate >= frame.sample_rate), AAC_RATES[-1])
    return SoundForm(rate, min(max(frame.layout.nb_channels, 1), MOST_CHANNELS))


def flush(resampler: av.AudioResampler | None, form: SoundForm) -> Iterator[tuple[SoundForm, Samples]]:
    """What a resampler still holds."""
    if resampler is not None:
        yield from ((form, to_samples(piece)) for piece in resampler.resample(None))


def to_samples(frame: av.AudioFrame) -> Samples:
    return frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def check_end(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, reached_s: float, name: str
) -> None:
    """Raises: MediaTruncated where the file holds clearly less sound than it declares."""
    if container.format.name.startswith(FORMATS_WITHOUT_DURATION) or not stream.duration or not stream.time_base:
        return
    declared_s = float(stream.duration * stream.time_base)
    if declared_s - reached_s > max(LOST_END_S, LOST_END_SHARE * declared_s):
        raise MediaTruncated(
            f"{name}: its sound ends after {reached_s:.2f} s of the {declared_s:.2f} s it declares; "
            "the file is cut off or damaged"
        )
