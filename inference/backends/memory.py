"""Memory that is free, but that the C library keeps."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what is free to the system, after something large was loaded; nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
