"""How long each stage of a streaming pipeline takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StageClock:
    """Shares out time among stages that pull from one another: each gets its own, not its suppliers'.

    clock: seconds; wall time by default, `time.process_time` to count CPU time.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._running: list[str] = []
        self._since = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside for `name`, and nothing for the stage around it meanwhile."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def watch(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time it takes to make each is counted for `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def as_ms(self) -> dict[str, float]:
        """Milliseconds of each stage so far, and of all together as "total"."""
        self._settle()
        stages = {name: round(seconds * 1000, 1) for name, seconds in self.seconds.items()}
        return stages | {"total": round(sum(self.seconds.values()) * 1000, 1)}

    def _settle(self) -> None:
        now = self._clock()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
