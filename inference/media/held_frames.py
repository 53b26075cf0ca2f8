"""Frames that are held: the picture does not change, because a signal was lost, or a recorder saw no change."""

from __future__ import annotations

import weakref

import numpy as np

from inference.media.frames import Frame

UNCHANGED_WITHIN = 4  # levels, of every sample: a face at rest changes by 6 to 18 from frame to frame
SAMPLE_EVERY = 4  # rows and columns
COARSE_EVERY = 4  # samples, compared first


class HeldFrameDetector:
    """Compares frames with the first one that looks like them."""

    def __init__(self) -> None:
        self._first: weakref.ref[Frame] | None = None  # weak, so that a frame of 8K is not kept
        self._samples: Frame | None = None

    def is_held(self, frame: Frame) -> bool:
        """Return whether a frame is the one before it, held; frames come in order. frame: (H, W, 3) uint8."""
        if self._first is not None and self._first() is frame:
            return True
        samples = frame[::SAMPLE_EVERY, ::SAMPLE_EVERY]
        if self._samples is not None and are_alike(samples, self._samples):
            return True
        self._first, self._samples = weakref.ref(frame), samples.copy()
        return False


def are_alike(samples: Frame, others: Frame) -> bool:
    """Return whether no sample differs by more than UNCHANGED_WITHIN."""
    if samples.shape != others.shape:
        return False
    for step in (COARSE_EVERY, 1):
        one, other = samples[::step, ::step], others[::step, ::step]
        if (np.maximum(one, other) - np.minimum(one, other)).max(initial=0) > UNCHANGED_WITHIN:
            return False
    return True
