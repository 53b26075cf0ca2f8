"""How much memory a piece of work takes in this process, and on its GPU."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

import torch

MIB = 1 << 20
EVERY_S = 0.05
STATM = Path("/proc/self/statm")  # in pages; the second number is what is resident
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Level:
    """The peak and the mean of a number that is looked at again and again."""

    def __init__(self) -> None:
        self.peak = self._sum = self._n = 0

    def add(self, n_bytes: int) -> None:
        self.peak, self._sum, self._n = max(self.peak, n_bytes), self._sum + n_bytes, self._n + 1

    def as_mib(self, name: str) -> dict[str, float]:
        found = {"peak": self.peak, "mean": self._sum / self._n}
        return {f"{name}_{which}_mib": round(n_bytes / MIB, 1) for which, n_bytes in found.items()}


class MemoryWatch:
    """Looks at this process's memory twenty times a second while it is open. A context manager, for Linux."""

    def __init__(self) -> None:
        self._ram, self._vram = Level(), Level()
        self._has_gpu = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def as_mib(self) -> dict[str, float]:
        """Of resident memory; where there is a GPU in use, also of what torch has allocated there."""
        if not self._has_gpu:
            return self._ram.as_mib("ram")
        self._vram.peak = max(self._vram.peak, torch.cuda.max_memory_allocated())
        return self._ram.as_mib("ram") | self._vram.as_mib("vram")

    def __enter__(self) -> MemoryWatch:
        if self._has_gpu:
            torch.cuda.reset_peak_memory_stats()
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        self._ram.add(int(STATM.read_text().split()[1]) * PAGE_BYTES)
        if self._has_gpu:
            self._vram.add(torch.cuda.memory_allocated())
