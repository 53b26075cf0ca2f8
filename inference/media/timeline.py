"""Timestamps of decoded frames."""

from __future__ import annotations

from fractions import Fraction

import av

SPLICE_GAP_S = Fraction(1, 2)  # timestamps that go back further than this belong to another video


class Timeline:
    """Timestamps of frames, for files whose own timestamps may repeat or start again."""

    def __init__(self, stream: av.video.stream.VideoStream) -> None:
        self.offset = Fraction(0)
        self._stream = stream
        self._last: tuple[Fraction, Fraction] | None = None

    def timestamp(self, frame: av.VideoFrame) -> tuple[Fraction, Fraction] | None:
        """Return start and duration in seconds; None for a second frame at the same time.

        Timestamps that go back belong to another video spliced on, which follows the last frame.
        """
        duration = duration_of(frame, self._stream)
        if self._last is None:
            start = start_of(frame, None, self._stream)
        else:
            last_start, last_duration = self._last
            start = start_of(frame, last_start - self.offset, self._stream) + self.offset
            if start < last_start - SPLICE_GAP_S:
                spliced = last_start + last_duration
                self.offset += spliced - start
                start = spliced
            if start <= last_start:
                return None
        self._last = start, duration
        return self._last


def start_of(frame: av.VideoFrame, last: Fraction | None, stream: av.video.stream.VideoStream) -> Fraction:
    """Return a frame's start in seconds; without a timestamp it follows the last frame at the stream's rate."""
    pts = frame.pts if frame.pts is not None else frame.dts
    if pts is not None and frame.time_base:
        return pts * frame.time_base
    return Fraction(0) if last is None else last + 1 / rate_of(stream)


def duration_of(frame: av.VideoFrame, stream: av.video.stream.VideoStream) -> Fraction:
    if frame.duration and frame.time_base:
        return frame.duration * frame.time_base
    return 1 / rate_of(stream)


def rate_of(stream: av.video.stream.VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)
