"""Positions of decoded audio in time, by its timestamps: gaps become silence, overlaps are cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate, takewhile
from typing import NamedTuple

import av

TOLERANCE_S = 0.02  # timestamps are rounded to milliseconds, and live recorders write them with some jitter
START_TOLERANCE_S = 0.001  # of the first one: no audio before it hides a correction
LOOK_AHEAD_S = 0.3  # a gap or an overlap is real if the timestamps of this much audio after it agree
MAX_AHEAD = 64  # frames in that time, however short they are
MAX_OVERLAP_S = 0.5  # timestamps that go back further belong to another recording spliced on
MAX_GAP_S = 600.0  # a longer silence is a jump of the clock; see CLOCK_JUMP
MAX_LEAD_S = 0.04  # audio that starts this much before the video is priming, or too little to hold the first frame for


class PlacedAudio(NamedTuple):
    """A decoded frame of audio.

    at_s: where it starts, in seconds from the start of the file; None if it follows the previous one.
    """

    frame: av.AudioFrame
    at_s: float | None = None


class TimestampedAudio(NamedTuple):
    """A decoded frame of audio with its timestamp, None if it has none, and its duration, in seconds."""

    frame: av.AudioFrame
    timestamp_s: float | None
    duration_s: float

    @classmethod
    def of(cls, frame: av.AudioFrame) -> TimestampedAudio:
        pts, time_base = frame.pts, frame.time_base
        timestamp_s = None if pts is None or time_base is None else pts * time_base.numerator / time_base.denominator
        return cls(frame, timestamp_s, frame.samples / frame.sample_rate)


class AudioClock:
    """Compares the timestamps of frames with the audio decoded so far."""

    def __init__(self, origin_s: float | None, max_silence_s: float) -> None:
        """Start at the first frame.

        origin_s: the timestamp at which the file starts; None if that is the one of the first frame.
        max_silence_s: in all gaps together; a gap beyond it is closed, as is one longer than MAX_GAP_S.
        """
        self.has_jumped = False  # whether a gap was closed because it was too long
        self._silence_left_s = max_silence_s
        self._origin_s = origin_s
        self._end_s: float | None = None  # timestamp at which the next frame is expected
        self._start_s = 0.0  # timestamp of the first frame
        self._offset_s = 0.0  # added to timestamps, since the last splice
        self._pending: deque[TimestampedAudio] = deque()

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first sample, or from the start of the file if that is earlier, to the last one."""
        return 0.0 if self._end_s is None else self._end_s - min(self._start_s, self._origin())

    def place(self, frames: Iterable[av.AudioFrame]) -> Iterator[PlacedAudio]:
        """Yield all frames in their order; `at_s` is set where silence precedes one, or it overlaps the previous."""
        pending_s = 0.0
        for frame in frames:
            self._pending.append(TimestampedAudio.of(frame))
            pending_s += self._pending[-1].duration_s
            while pending_s > LOOK_AHEAD_S or len(self._pending) > MAX_AHEAD:
                pending_s -= self._pending[0].duration_s
                yield self._place_next()
        while self._pending:
            yield self._place_next()

    def _origin(self) -> float:
        return self._start_s if self._origin_s is None else self._origin_s

    def _place_next(self) -> PlacedAudio:
        first, tolerance_s = self._pending[0], TOLERANCE_S
        if self._end_s is None:
            self._start_s = first.timestamp_s if first.timestamp_s is not None else self._origin()
            self._end_s, tolerance_s = self._origin(), START_TOLERANCE_S
        shift_s = self._shift(self._end_s, tolerance_s)
        self._pending.popleft()
        self._silence_left_s -= max(shift_s, 0.0)
        start_s = self._end_s + shift_s
        self._end_s = start_s + first.duration_s
        return PlacedAudio(first.frame, start_s - self._origin()) if shift_s else PlacedAudio(first.frame)

    def _shift(self, end_s: float, tolerance_s: float) -> float:
        """Return how much later than at `end_s` the next frame starts: negative for an overlap, 0 if as expected."""
        timestamp_s = self._pending[0].timestamp_s
        deviation_s = 0.0 if timestamp_s is None else timestamp_s + self._offset_s - end_s
        if abs(deviation_s) <= tolerance_s:
            return 0.0
        if not -MAX_OVERLAP_S <= deviation_s <= min(MAX_GAP_S, self._silence_left_s):
            self.has_jumped = self.has_jumped or deviation_s > 0
            self._offset_s -= deviation_s
            return 0.0
        following = self._deviations(end_s)
        agreed_s = min(following) if deviation_s > 0 else max(following)
        return agreed_s if abs(agreed_s) > tolerance_s and agreed_s * deviation_s > 0 else 0.0

    def _deviations(self, end_s: float) -> list[float]:
        """Return by how much each pending frame starts later than right after the previous ones, up to a splice."""
        expected = accumulate((one.duration_s for one in self._pending), initial=end_s)
        deviations = [
            one.timestamp_s + self._offset_s - at_s
            for one, at_s in zip(self._pending, expected, strict=False)
            if one.timestamp_s is not None
        ]
        return list(takewhile(lambda deviation_s: deviation_s >= -MAX_OVERLAP_S, deviations))


def origin_of(video: av.VideoStream | None, audios: Iterable[av.AudioStream]) -> float | None:
    """Return the timestamp at which a file with video and audio starts: that of the first frame, or of earlier audio.

    None for a file that lacks one of them, or does not declare where they start: each then starts at its own beginning.
    """
    starts = [start for audio in audios if (start := start_s_of(audio)) is not None]
    video_s = None if video is None else start_s_of(video)
    if video_s is None or not starts:
        return None
    lead_s = video_s - min(starts)
    return min(starts) if MAX_LEAD_S < lead_s <= MAX_GAP_S else video_s


def start_s_of(stream: av.VideoStream | av.AudioStream) -> float | None:
    return None if stream.start_time is None or not stream.time_base else float(stream.start_time * stream.time_base)
