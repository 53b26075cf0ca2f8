"""From decoded frames with timestamps to frames at an exact rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
T = TypeVar("T")

CHUNK_BYTES = 32 << 20  # frames in one clip, so that memory does not grow with their size
CHUNK_FRAMES = 25


@dataclass(frozen=True)
class Clip:
    """A run of consecutive frames.

    frames: each (H, W, 3) uint8 BGR. A frame shown for several ticks is repeated (the same array): do not write into
    them.
    fps: frames per second.
    """

    frames: tuple[Frame, ...]
    fps: float


@dataclass(frozen=True)
class TimedItem(Generic[T]):
    """An item shown from `start` for `duration`, both in seconds."""

    start: Fraction
    duration: Fraction
    item: T


def resample_to_rate(items: Iterable[TimedItem[T]], fps: Fraction) -> Iterator[T]:
    """Resample to a constant rate: tick k gets the item that starts nearest to k / fps (ties: the earlier).

    Time counts from the first item. The number of ticks is the duration times `fps`, rounded,
    and at least 1. Items must be in order of `start`.
    """
    tick = 0
    origin: Fraction | None = None
    last: TimedItem[T] | None = None
    for item in items:
        if last is None or origin is None:
            origin = item.start
        else:
            middle = (last.start + item.start) / 2 - origin
            while tick <= middle * fps:
                yield last.item
                tick += 1
        last = item
    if last is None or origin is None:
        return
    end = last.start + last.duration - origin
    n_ticks = max(round(end * fps), 1)
    while tick < n_ticks:
        yield last.item
        tick += 1


def group_into_clips(frames: Iterable[Frame], fps: float) -> Iterator[Clip]:
    """Group frames into clips of at most 25 frames and 32 MiB, but at least one frame."""
    pending: list[Frame] = []
    n_bytes = 0
    for frame in frames:
        pending.append(frame)
        n_bytes += frame.nbytes
        del frame  # so that a large one is freed before the next is made
        if len(pending) == CHUNK_FRAMES or n_bytes >= CHUNK_BYTES:
            yield Clip(tuple(pending), fps)
            pending, n_bytes = [], 0
    if pending:
        yield Clip(tuple(pending), fps)


def pad_to_even(frame: Frame) -> Frame:
    """Repeat the last row or column if a side is odd: H.264 stores one colour for 2 x 2 pixels."""
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
