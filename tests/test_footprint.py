from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from inference import footprint
from inference.footprint import MIB, PAGE_BYTES, MemoryWatch, SampleStats


def test_a_level_has_a_peak_and_a_mean():
    level = SampleStats()
    for n_mib in (1, 2, 6):
        level.add(n_mib * MIB)
    assert level.as_mib("ram") == {"ram_peak_mib": 6.0, "ram_mean_mib": 3.0}


def test_what_was_held_for_a_while_is_in_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel's figures are played here: it takes memory back when it likes."""
    statm = tmp_path / "statm"
    monkeypatch.setattr(footprint, "STATM", statm)

    def hold(n_mib: int) -> None:
        (tmp_path / "next").write_text(f"999999 {n_mib * MIB // PAGE_BYTES} 7 7 0 7 0")
        (tmp_path / "next").replace(statm)  # in one move: the watch may look at any time

    hold(100)
    with MemoryWatch() as watch:
        assert watch.as_mib()["ram_peak_mib"] == 100
        hold(164)
        deadline = time.monotonic() + 60  # a busy machine lets the watch wait
        while watch.as_mib()["ram_peak_mib"] < 164 and time.monotonic() < deadline:
            time.sleep(0.02)
        hold(90)
    found = watch.as_mib()
    assert found["ram_peak_mib"] == 164
    assert 90 < found["ram_mean_mib"] < 164


def test_the_kernel_is_asked_for_what_is_resident():
    with MemoryWatch() as watch:
        pass
    assert watch.as_mib()["ram_peak_mib"] == pytest.approx(psutil.Process().memory_info().rss / MIB, rel=0.2)
