"""Counts of the frames of all live sessions of a server, for its metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FrameCounts:
    """Frames that were due so far; those whose turn came 40 ms or more late; those dropped.

    They are dropped if the client was slow or, over WebRTC, the server was.
    """

    n_frames: int = 0
    n_late: int = 0
    n_dropped: int = 0
