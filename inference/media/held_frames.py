"""Frames that are held: they repeat the one before, because a signal was lost, or a recorder found no change."""

from __future__ import annotations

import weakref

import numpy as np

from inference.media.frames import Frame

UNCHANGED_WITHIN = 4  # levels, of every sample: a face at rest changes by 6 to 18 from frame to frame
ROW_EVERY = 8  # compared; whole rows, which are copied fast
COARSE_EVERY = 4, 16  # of these rows, and of their pixels, compared first


class HeldFrameDetector:
    """Compares frames with the first one that looks like them."""

    def __init__(self) -> None:
        self._first: weakref.ref[Frame] | None = None  # weak, so that a frame of 8K is not kept
        self._rows: Frame | None = None

    def is_held(self, frame: Frame) -> bool:
        """Return whether a frame is the one before it, held; frames come in order. frame: (H, W, 3) uint8."""
        if self._first is not None and self._first() is frame:
            return True
        rows = frame[::ROW_EVERY]
        if self._rows is not None and are_alike(rows, self._rows):
            return True
        self._first, self._rows = weakref.ref(frame), rows.copy()
        return False


def are_alike(rows: Frame, others: Frame) -> bool:
    """Return whether no sample differs by more than UNCHANGED_WITHIN."""
    if rows.shape != others.shape:
        return False
    for down, across in (COARSE_EVERY, (1, 1)):
        one, other = rows[::down, ::across], others[::down, ::across]
        if (np.maximum(one, other) - np.minimum(one, other)).max(initial=0) > UNCHANGED_WITHIN:
            return False
    return True
