"""Which stream of a file is its video, and which its audio."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import av
from av.stream import Disposition

from inference.errors import NoAudio, UnsupportedMedia

NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
# Commentary and audio for the blind or the deaf: players only play them if they are chosen.
SECONDARY_AUDIO = (
    Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.descriptions
)
BRIEF_SHARE = 0.1  # a stream shorter than this share of the longest is a cover or a preview, unless it is alone
StreamT = TypeVar("StreamT", av.VideoStream, av.AudioStream)


def demux(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet[Any]]:
    """Yield the packets of some streams, by default of all, and at the end an empty one of each.

    Raises: EOFError, and FFmpeg's errors.
    """
    # PyAV flushes streams that appeared after the file was opened, as in MPEG-TS, by a list that lacks them. They are
    # the last ones, so there is nothing to come.
    # Source: PyAV 18.1, av/container/input.py, InputContainer.demux, below "Flush!".
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


def choose_video(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """Return the stream that players show: no cover, no thumbnail, no preview.

    A stream of one frame or of little duration loses against a longer one; then the one marked as default wins, then
    the larger, then the first. Raises: UnsupportedMedia if there is none, or all are in unknown codecs.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & NOT_VIDEO]
    decodable = decodable_of(videos)
    if videos and not decodable:
        raise UnsupportedMedia(f"{name}: its video is in an unknown codec")
    if not decodable:
        raise UnsupportedMedia(f"{name}: contains {list_kinds(container)}; expected a video or an image")
    longest_s = max(duration_s_of(stream) for stream in decodable)

    def rank(stream: av.VideoStream) -> tuple[bool, bool, int, int]:
        is_brief = stream.frames == 1 or 0 < duration_s_of(stream) < BRIEF_SHARE * longest_s
        is_default = bool(stream.disposition & Disposition.default)
        return not is_brief, is_default, stream.width * stream.height, -stream.index

    return max(decodable, key=rank)


def choose_audio(container: av.container.InputContainer, name: str) -> av.AudioStream:
    """Return the stream that players play: the first one marked as default, else the first.

    Commentary and audio for the blind or the deaf come last. Raises: NoAudio, UnsupportedMedia.
    """
    streams = container.streams.audio
    if not streams:
        raise NoAudio(f"{name}: contains {list_kinds(container)}; expected audio")
    decodable = decodable_of(list(streams))
    if not decodable:
        raise UnsupportedMedia(f"{name}: its audio is in an unknown codec")

    def rank(stream: av.AudioStream) -> tuple[bool, bool, int]:
        is_primary = not stream.disposition & SECONDARY_AUDIO
        return is_primary, bool(stream.disposition & Disposition.default), -stream.index

    return max(decodable, key=rank)


def decodable_of(streams: list[StreamT]) -> list[StreamT]:
    return [stream for stream in streams if stream.codec_context is not None]


def list_kinds(container: av.container.InputContainer) -> str:
    """Return what a file contains, for a message: "audio only (wav)"."""
    kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
    return f"{' and '.join(kinds)} only ({container.format.name})"


def duration_s_of(stream: av.VideoStream | av.AudioStream) -> float:
    """Return the duration that the stream itself declares, in seconds; 0 if it does not."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def exact_duration_s(container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream) -> float | None:
    """Return the duration of a stream if it is the sum of its frames', as in the index of an MP4; else None.

    Elsewhere the duration is one of the whole file with its subtitles, a guess from the bit rate, or a header's claim.
    """
    return duration_s_of(stream) if container.format.name.startswith("mov") else None


def video_duration_s(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Return how long a video lasts by what the file declares; None if that may be the time of a subtitle.

    Matroska declares the duration of the whole file, and in a tag that of each stream.
    """
    whole_s = container.duration / av.time_base if container.duration else None
    own_s = duration_s_of(stream) or seconds_of_clock(stream.metadata.get("DURATION", ""))
    if own_s is None:
        return None if container.streams.subtitles else whole_s
    return own_s if whole_s is None else min(own_s, whole_s)


def seconds_of_clock(text: str) -> float | None:
    """Return the seconds of "01:02:03.5", None for anything else."""
    found = re.fullmatch(r"(\d{1,5}):(\d\d):(\d\d(?:\.\d{1,9})?)", text, re.ASCII)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
