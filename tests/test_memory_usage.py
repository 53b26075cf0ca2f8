from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from inference import memory_usage as footprint
from inference.memory_usage import MIB, PAGE_BYTES, MemoryWatch, SampleStats


def test_peak_and_mean_of_samples():
    stats = SampleStats()
    for n_mib in (1, 2, 6):
        stats.add(n_mib * MIB)
    assert stats.as_mib("ram") == {"ram_peak_mib": 6.0, "ram_mean_mib": 3.0}


def test_memory_used_for_a_while_is_in_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel's figures are simulated: it reclaims memory at any time."""
    statm = tmp_path / "statm"
    monkeypatch.setattr(footprint, "STATM", statm)

    def hold(n_mib: int) -> None:
        (tmp_path / "next").write_text(f"999999 {n_mib * MIB // PAGE_BYTES} 7 7 0 7 0")
        (tmp_path / "next").replace(statm)  # atomically: the watch may read at any time

    hold(100)
    with MemoryWatch() as watch:
        assert watch.as_mib()["ram_peak_mib"] == 100
        hold(164)
        deadline = time.monotonic() + 60  # the watch may be late on a busy machine
        while watch.as_mib()["ram_peak_mib"] < 164 and time.monotonic() < deadline:
            time.sleep(0.02)
        hold(90)
    found = watch.as_mib()
    assert found["ram_peak_mib"] == 164
    assert 90 < found["ram_mean_mib"] < 164


def test_it_reports_resident_memory():
    with MemoryWatch() as watch:
        pass
    assert watch.as_mib()["ram_peak_mib"] == pytest.approx(psutil.Process().memory_info().rss / MIB, rel=0.2)
