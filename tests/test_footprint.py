from __future__ import annotations

import time

import numpy as np

from inference.footprint import MIB, Level, MemoryWatch


def test_a_level_has_a_peak_and_a_mean():
    level = Level()
    for n_mib in (1, 2, 6):
        level.add(n_mib * MIB)
    assert level.as_mib("ram") == {"ram_peak_mib": 6.0, "ram_mean_mib": 3.0}


def test_what_was_held_for_a_while_is_in_the_peak():
    with MemoryWatch() as watch:
        before = watch.as_mib()["ram_peak_mib"]
        held = np.ones(64 * MIB, np.uint8)
        deadline = time.monotonic() + 60  # a busy machine lets the watch wait
        while watch.as_mib()["ram_peak_mib"] < before + 50 and time.monotonic() < deadline:
            time.sleep(0.02)
        del held
    found = watch.as_mib()
    assert found["ram_peak_mib"] >= before + 50
    assert 0 < found["ram_mean_mib"] <= found["ram_peak_mib"]
