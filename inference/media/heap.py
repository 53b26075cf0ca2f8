"""Memory given back while frames stream through.

glibc keeps what is freed between blocks that live on, and frames of several sizes leave ever more holes there: of 720p,
lip sync held 90 MB more after each hundred frames, though none of them was in use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

EVERY_BYTES = 128 << 20  # of frames that passed: 46 of 720p; more often would cost time, to take the pages anew


def find_trim() -> Callable[[int], object] | None:
    """Glibc's malloc_trim; None where the C library has none."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


class HeapTrimmer:
    """Gives free pages back each time that so many bytes of frames passed."""

    def __init__(self, every_bytes: int = EVERY_BYTES, trim: Callable[[int], object] | None = None) -> None:
        self._every_bytes = every_bytes
        self._trim = trim or find_trim()
        self._n_bytes = 0

    def passed(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes >= self._every_bytes:
            self._n_bytes = 0
            if self._trim is not None:
                self._trim(0)
