"""The order in which the frames of a short video repeat."""

from __future__ import annotations


def ping_pong_index(step: int, n_frames: int) -> int:
    """Return the frame shown at a step: 0, 1, ... to the last one and back to 0; each end is shown once.

    step: from 0, which shows frame 0. n_frames: at least 1; a single frame is always shown.
    """
    if n_frames == 1:
        return 0
    position = step % (2 * n_frames - 2)
    return position if position < n_frames else 2 * n_frames - 2 - position
