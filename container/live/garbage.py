"""Garbage collections of the server process, which stop all its threads."""

from __future__ import annotations

import gc


def exclude_loaded_objects() -> None:
    """Leave what is loaded now, such as modules and packages, out of later collections.

    They stay for long, and there are hundreds of thousands: to visit them all stops every session for a quarter of a
    second, some minutes apart. Call it while no session is open: what is part of one now would never be collected.
    """
    gc.unfreeze()  # packages that were dropped since the last call
    gc.collect()
    gc.freeze()
