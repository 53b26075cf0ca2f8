"""Memory usage of a piece of work in this process, and on its GPU."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType

MIB = 1 << 20
SAMPLE_INTERVAL_S = 0.05  # 20 samples per second
STATM = Path("/proc/self/statm")  # numbers of pages; the second one is resident memory
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, by default this one. Linux only. Raises: OSError if it has ended."""
    statm = STATM if pid is None else Path(f"/proc/{pid}/statm")
    return int(statm.read_text().split()[1]) * PAGE_BYTES


class SampleStats:
    """The peak and the mean of samples, in bytes."""

    def __init__(self) -> None:
        self.peak = self._sum = self._n = 0

    def add(self, n_bytes: int) -> None:
        self.peak, self._sum, self._n = max(self.peak, n_bytes), self._sum + n_bytes, self._n + 1

    def as_mib(self, name: str) -> dict[str, float]:
        values = {"peak": self.peak, "mean": self._sum / self._n}
        return {f"{name}_{kind}_mib": round(n_bytes / MIB, 1) for kind, n_bytes in values.items()}


class MemoryWatch:
    """Samples the memory of this process 20 times per second while the context is open. Linux only."""

    def __init__(self) -> None:
        self._ram, self._vram = SampleStats(), SampleStats()
        torch = sys.modules.get("torch")  # without it no GPU is in use
        self._cuda = torch.cuda if torch is not None and torch.cuda.is_initialized() else None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def as_mib(self) -> dict[str, float]:
        """Return peak and mean of resident memory and, if torch uses a GPU, of the memory it has allocated there."""
        if self._cuda is None:
            return self._ram.as_mib("ram")
        self._vram.peak = max(self._vram.peak, self._cuda.max_memory_allocated())
        return self._ram.as_mib("ram") | self._vram.as_mib("vram")

    def peaks_mib(self) -> tuple[float | None, float | None]:
        """Return the peaks of `as_mib`: of resident memory, and of the GPU's if torch uses one."""
        found = self.as_mib()
        return found["ram_peak_mib"], found.get("vram_peak_mib")

    def __enter__(self) -> MemoryWatch:
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._is_closed.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._is_closed.wait(SAMPLE_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        self._ram.add(resident_bytes())
        if self._cuda is not None:
            self._vram.add(self._cuda.memory_allocated())
