"""Segments: parts of a video that speak, each with an audio of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from inference.errors import InvalidRequest

MAX_SEGMENTS = 100
END_TOLERANCE_S = 0.1  # by which a segment may exceed the video or the audio: files declare their length no better


@dataclass(frozen=True)
class SyncSegment:
    """A part of a video whose mouth and audio come from a part of an audio file.

    start_s, end_s: in the video; None: until its end. audio: index from 0 into the audio files of the request.
    audio_start_s, audio_end_s: the part of that file; None: until its end.
    Source: sync.so/docs/developer-guides/segments.
    """

    start_s: float
    end_s: float | None = None
    audio: int = 0
    audio_start_s: float = 0.0
    audio_end_s: float | None = None

    def check(self, label: str) -> None:
        """Raise InvalidRequest if a value is impossible. label: the name of the segment in messages."""
        for name in ("start_s", "end_s", "audio_start_s", "audio_end_s"):
            value = getattr(self, name)
            may_be_none = name in ("end_s", "audio_end_s")
            if not (value is None and may_be_none) and not is_time(value):
                raise InvalidRequest(f"{label}: {name} {value!r}; expected seconds from 0 up")
        if type(self.audio) is not int or self.audio < 0:
            raise InvalidRequest(f"{label}: audio {self.audio!r}; expected an index from 0 up")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise InvalidRequest(f"{label}: ends at {self.end_s:g} s, but starts at {self.start_s:g} s")
        if self.audio_end_s is not None and self.audio_end_s <= self.audio_start_s:
            raise InvalidRequest(
                f"{label}: its audio ends at {self.audio_end_s:g} s, but starts at {self.audio_start_s:g} s"
            )


@dataclass(frozen=True)
class PlacedSegment:
    """Frames first..end-1 of a video, and what they speak.

    audio: index of the file. audio_start_s, audio_end_s: the part of it that is spoken; it may be shorter than the
    frames last.
    """

    first: int
    end: int
    audio: int
    audio_start_s: Fraction
    audio_end_s: Fraction


def is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def check_segments(segments: Sequence[SyncSegment]) -> None:
    """Check all that can be checked without the media.

    Raises: InvalidRequest naming the segment, counted from 0: if a value is impossible, or two segments overlap.
    """
    if len(segments) > MAX_SEGMENTS:
        raise InvalidRequest(f"segments: found {len(segments)}; at most {MAX_SEGMENTS} expected")
    for i, segment in enumerate(segments):
        segment.check(f"segment {i}")
    order = sorted(range(len(segments)), key=lambda i: segments[i].start_s)
    for i, j in pairwise(order):
        end_s = segments[i].end_s
        if end_s is None or end_s > segments[j].start_s:
            until = "the end of the video" if end_s is None else f"{end_s:g} s"
            raise InvalidRequest(
                f"segment {i}: lasts until {until}, but segment {j} starts at {segments[j].start_s:g} s; "
                "expected segments that do not overlap"
            )


def check_audio_count(segments: Sequence[SyncSegment], n_audios: int) -> None:
    """Check that each segment names an audio file that is there, and that several files have segments.

    Raises: InvalidRequest.
    """
    if not segments and n_audios != 1:
        raise InvalidRequest(f"{n_audios} audio files without segments; expected one, or segments that name them")
    for i, segment in enumerate(segments):
        if segment.audio >= n_audios:
            raise InvalidRequest(
                f"segment {i}: audio {segment.audio}, counted from 0; found {n_audios} audio file"
                f"{'s' if n_audios > 1 else ''}"
            )


def place_segments(
    segments: Sequence[SyncSegment],
    n_source: int,
    fps: Fraction,
    durations_s: dict[int, Fraction],
    *,
    ends_with_audio: bool,
) -> list[PlacedSegment]:
    """Place segments on the frames of a video, in order.

    n_source: frames of the video. durations_s: of each audio file. ends_with_audio: whether a segment ends when its
    audio does, else silence follows.
    Raises: InvalidRequest naming the segment, if it is beyond the video or its audio.
    """
    placed = []
    for i, segment in sorted(enumerate(segments), key=lambda pair: pair[1].start_s):
        start_s, end_s = place_audio(segment, durations_s[segment.audio], f"segment {i}")
        first, end = place_frames(segment, n_source, fps, f"segment {i}")
        if ends_with_audio:
            end = min(end, first + max(round((end_s - start_s) * fps), 1))
        placed.append(PlacedSegment(first, end, segment.audio, start_s, end_s))
    return placed


def place_frames(segment: SyncSegment, n_source: int, fps: Fraction, label: str) -> tuple[int, int]:
    """Return the first frame of a segment, and the one after its last. Raises: InvalidRequest."""
    duration_s = float(n_source / fps)
    if segment.start_s >= duration_s or (segment.end_s or 0) > duration_s + END_TOLERANCE_S:
        until = "its end" if segment.end_s is None else f"{segment.end_s:g} s"
        raise InvalidRequest(f"{label}: from {segment.start_s:g} s to {until}, but the video lasts {duration_s:.2f} s")
    first = min(round(Fraction(segment.start_s) * fps), n_source - 1)
    end = n_source if segment.end_s is None else min(round(Fraction(segment.end_s) * fps), n_source)
    if end <= first:
        raise InvalidRequest(f"{label}: is shorter than a frame, which lasts {float(1 / fps):.3f} s")
    return first, end


def place_audio(segment: SyncSegment, duration_s: Fraction, label: str) -> tuple[Fraction, Fraction]:
    """Return the seconds of an audio file at which a segment's part starts and ends. Raises: InvalidRequest."""
    start_s = Fraction(segment.audio_start_s)
    end_s = duration_s if segment.audio_end_s is None else Fraction(segment.audio_end_s)
    if start_s >= duration_s or end_s > duration_s + END_TOLERANCE_S:
        raise InvalidRequest(
            f"{label}: from {float(start_s):g} s to {float(end_s):g} s of audio {segment.audio}, "
            f"but that lasts {float(duration_s):.2f} s"
        )
    return start_s, min(end_s, duration_s)
