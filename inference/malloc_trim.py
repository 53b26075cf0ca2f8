"""When freed memory returns to the system: glibc's malloc_trim, and thresholds for commands that run briefly.

glibc keeps memory that is freed between blocks that are still in use, and frames of several sizes leave more and more
such gaps: lip sync of 720p held 90 MB more after each hundred frames, none of it in use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

EVERY_BYTES = 128 << 20  # of frames between two trims: 46 frames of 720p; page faults make more of them slow


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST_KEPT_BYTES, MAX_KEPT_BYTES = 32 << 20, 64 << 20


def keep_freed_memory() -> None:
    """Let malloc use freed blocks again, up to 64 MiB of them: page faults of new ones take a twentieth of a short run.

    For commands that read a few videos and end; a server would hold the memory. Nothing happens without glibc.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    set_option(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    set_option(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)


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
