"""Decoding of untrusted audio, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import av
import av.error
import numpy as np

from inference.errors import MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media.audio_clock import AudioClock, origin_of
from inference.media.audio_convert import AudioFormat, Samples, convert_audio, without_format
from inference.media.file_kinds import as_unsupported
from inference.media.files import Source, open_bytes, size_of
from inference.media.limits import MediaLimits
from inference.media.media_warnings import CLOCK_JUMP
from inference.media.open import open_container
from inference.media.streams import choose_audio, choose_video, demux, exact_duration_s
from inference.media.truncation import LOST_END_S, LOST_END_SHARE

MAX_RATE = 768_000  # samples a second; a higher rate is an error, and would take memory for each second allowed
USUAL_CHANNELS = (*range(1, 9), 10, 12, 14, 16, 24)  # numbers that FFmpeg has a layout for if the file declares none
# Raw streams declare no duration, or FFmpeg estimates one from the bit rate of the first packets.
FORMATS_WITHOUT_DURATION = ("mp3", "aac", "amr", "ac3", "flac", "mpeg", "mpegts", "ogg")


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


def decode_blocks(
    file: IO[bytes],
    name: str,
    audio_format: AudioFormat | None,
    limits: MediaLimits,
    warnings: list[str] | None = None,
) -> Iterator[tuple[AudioFormat, Samples]]:
    """Decode the audio of an open file block by block, each (n,) int16 with interleaved channels.

    Time counts from the start of the file. Gaps, also before the first sample, are silence.
    audio_format: the format to convert to; None keeps the file's own as far as AAC supports it. All blocks share it.
    warnings: what the caller should know is added at the end.
    """
    with open_container(file, name, limits) as container, as_unsupported(name):
        stream = choose_audio(container, name)
        declared_s = exact_duration_s(container, stream)
        if declared_s is not None and declared_s > limits.max_duration_s:
            raise MediaTooLarge(
                f"{name}: declares {declared_s:.1f} s of audio; at most {limits.max_duration_s:g} s expected"
            )
        clock = AudioClock(find_origin(container, name), limits.silence_s_of(size_of(file)))
        n_samples = 0
        for found, block in convert_audio(clock.place(decode(container, stream, name)), audio_format):
            n_samples += len(block) // found.n_channels
            if n_samples > limits.max_duration_s * found.rate:
                raise MediaTooLarge(f"{name}: over {limits.max_duration_s:g} s of audio; that is the limit")
            yield found, block
        check_end(container, stream, clock.elapsed_s, name)
        if clock.has_jumped and warnings is not None:
            warnings.append(CLOCK_JUMP)


def find_origin(container: av.container.InputContainer, name: str) -> float | None:
    """Return the timestamp at which the file starts; None if it has no video. See `origin_of`."""
    try:
        video = choose_video(container, name)
    except UnsupportedMedia:
        return None
    return origin_of(video, container.streams.audio)


def decode(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, name: str
) -> Iterator[av.AudioFrame]:
    """Yield every decodable frame of audio; broken packets are skipped.

    Raises: UnsupportedMedia if there were packets and none could be decoded.
    """
    stream.codec_context.thread_count = 1
    n_packets, n_frames = 0, 0
    for packet in read_packets(container, stream):
        n_packets += packet.size > 0
        try:
            frames = packet.decode()
        except MemoryError:
            raise  # PyAV's is also an FFmpegError, but no broken packet
        except av.error.FFmpegError:
            continue
        for frame in frames:
            check_frame(frame, name)
            n_frames += 1
            yield frame
    if n_packets and not n_frames:
        raise UnsupportedMedia(f"{name}: no audio could be decoded ({stream.codec_context.name})")


def read_packets(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream
) -> Iterator[av.Packet[av.audio.stream.AudioStream]]:
    """Yield the packets of a stream, and an empty one for what the decoder still holds."""
    packets = demux(container, stream)
    while True:
        try:
            yield next(packets)
        except (StopIteration, EOFError):
            return
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return  # broken from here on: `check_end` reports a missing end


def check_frame(frame: av.AudioFrame, name: str) -> None:
    """Raise UnsupportedMedia if the sample rate is impossible, or nothing says how to mix the channels."""
    if not 0 < frame.sample_rate <= MAX_RATE:
        raise UnsupportedMedia(f"{name}: audio of {frame.sample_rate} samples a second; at most {MAX_RATE} expected")
    n_channels = frame.layout.nb_channels
    if frame.layout.name == f"{n_channels} channels" and n_channels not in USUAL_CHANNELS:
        raise UnsupportedMedia(
            f"{name}: {n_channels} audio channels without a layout; "
            f"expected one, or {', '.join(str(n) for n in USUAL_CHANNELS)} channels"
        )


def check_end(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, reached_s: float, name: str
) -> None:
    """Raise MediaTruncated if the audio ends clearly before the file declares; silence inside of it counts."""
    if container.format.name.startswith(FORMATS_WITHOUT_DURATION) or not stream.duration or not stream.time_base:
        return
    declared_s = float(stream.duration * stream.time_base)
    if declared_s - reached_s > max(LOST_END_S, LOST_END_SHARE * declared_s):
        raise MediaTruncated(
            f"{name}: its audio ends after {reached_s:.2f} s of the {declared_s:.2f} s it declares; "
            "the file is truncated or damaged"
        )
