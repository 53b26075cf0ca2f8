"""Freed memory returned to the system: glibc's malloc_trim.

glibc keeps memory that is freed between blocks that are still in use, and frames of several sizes leave more and more
such gaps: lip sync of 720p held 90 MB more after each hundred frames, none of it in use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

EVERY_BYTES = 128 << 20  # of frames between two trims: 46 frames of 720p; page faults make more of them slow


@cache
def find_malloc_trim() -> Callable[[int], object] | None:
    """Return the C library's malloc_trim; None if it has none, as only glibc has."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


def trim_heap() -> None:
    """Return freed memory to the system; do nothing if the C library is not glibc."""
    trim = find_malloc_trim()
    if trim is not None:
        trim(0)


class HeapTrimmer:
    """Trims the heap each time that `every_bytes` of frames have been counted."""

    def __init__(self, every_bytes: int = EVERY_BYTES, trim: Callable[[], object] = trim_heap) -> None:
        self._every_bytes = every_bytes
        self._trim = trim
        self._n_bytes = 0

    def count(self, n_bytes: int) -> None:
        """Count a frame's bytes, and trim if they are enough."""
        self._n_bytes += n_bytes
        if self._n_bytes >= self._every_bytes:
            self._n_bytes = 0
            self._trim()
