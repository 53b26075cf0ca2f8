"""The frame rate of a video whose header declares an unlikely one: measured by its first packets."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Any

import av
import av.error

# Browsers write WebM with a default duration of 1 ms, so that FFmpeg reports 1000 frames a second.
MAX_LIKELY_FPS = 60
MEASURED_PACKETS = 48  # of the video
MIN_PACKETS = 8  # fewer measure nothing
MAX_READ_PACKETS, MAX_READ_BYTES = 1000, 32 << 20  # of all streams, held until they are decoded
SAME_RATE = 0.75  # share of the declared rate from which on it is right
USUAL_RATES = (10, 12, 15, 20, 24, 25, 30, 48, 50, 60)
USUAL_TOLERANCE = 0.1  # timestamps in milliseconds, and live recorders, only give the rate roughly


def read_ahead(packets: Iterator[av.Packet[Any]], stream: av.VideoStream) -> list[av.Packet[Any]]:
    """Take the first packets of all streams, as many as measuring the rate takes."""
    taken: list[av.Packet[Any]] = []
    n_video = n_bytes = 0
    try:
        while n_video < MEASURED_PACKETS and len(taken) < MAX_READ_PACKETS and n_bytes < MAX_READ_BYTES:
            taken.append(next(packets))
            n_video += taken[-1].stream is stream
            n_bytes += taken[-1].size
    except MemoryError:
        raise
    except (StopIteration, EOFError, av.error.FFmpegError):
        pass  # the end, which the reader of these packets finds again
    return taken


def measure_rate(packets: list[av.Packet[Any]], stream: av.VideoStream, declared: Fraction) -> Fraction:
    """Return the declared rate if the packets have about that many frames a second, else theirs.

    Frames that were lost are counted, too: an interval twice as long as most has two. A rate near a usual one is that.
    """
    stamps = sorted({packet.pts for packet in packets if packet.stream is stream and packet.pts is not None})
    if len(stamps) < MIN_PACKETS or not stream.time_base:
        return declared
    intervals = [after - before for before, after in pairwise(stamps)]
    usual_interval = median(intervals)
    n_frames = sum(max(round(interval / usual_interval), 1) for interval in intervals)
    measured = Fraction(n_frames, stamps[-1] - stamps[0]) / stream.time_base
    if measured >= SAME_RATE * declared:
        return declared
    usual = min(USUAL_RATES, key=lambda rate: abs(rate - measured))
    return Fraction(usual) if abs(usual - measured) <= USUAL_TOLERANCE * usual else measured
