"""Timing and deadlines of the stages of a streaming pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from inference.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A limit on the total time of some stages.

    name: how messages call them. stages: their names in the clock; None: all stages.
    """

    name: str
    seconds: float
    stages: tuple[str, ...] | None = None


def do_nothing() -> None:
    """Do nothing: the default for callbacks that can end the work."""


class StageClock:
    """Attributes time to stages that pull from one another: each gets its own time, not that of its inputs.

    clock: returns seconds; wall time by default, `time.process_time` for CPU time. deadlines: checked whenever a
    stage yields an item. on_item: called then, too; an exception that it raises ends the work.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        deadlines: Sequence[Deadline] = (),
        on_item: Callable[[], None] = do_nothing,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self.seconds_in_call: dict[str, float] = {}
        self._deadlines = tuple(deadlines)
        self._on_item = on_item
        self._clock = clock
        self._running: list[str] = []
        self._last_time = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Attribute the time inside the context to `name`, and not to the enclosing stage."""
        self._attribute_elapsed()
        self._running.append(name)
        try:
            yield
        finally:
            self._attribute_elapsed()
            self._running.pop()

    def watch(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the same items; attribute the time to make each of them to `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            self.check(name)
            yield item

    def timed(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """Return the same function; its time is counted for its stage as before, and separately under `name`."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            start = self._clock()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds_in_call[name] = self.seconds_in_call.get(name, 0.0) + self._clock() - start

        return run

    def check(self, stage: str) -> None:
        """Check the deadlines. stage: the one that has just yielded an item.

        Raises: DeadlineExceeded naming the deadline that passed; the errors of `on_item`.
        """
        self._on_item()
        if self._deadlines:
            self._attribute_elapsed()
        for one in self._deadlines:
            counted = self.seconds if one.stages is None else one.stages
            if sum(self.seconds.get(name, 0.0) for name in counted) > one.seconds:
                raise DeadlineExceeded(f"{one.name} took over {one.seconds:g} s, which is its limit (last: {stage})")

    def as_ms(self) -> dict[str, float]:
        """Return the milliseconds of each stage so far, and their sum as "total"."""
        self._attribute_elapsed()
        stages = {name: round(seconds * 1000, 1) for name, seconds in self.seconds.items()}
        return stages | {"total": round(sum(self.seconds.values()) * 1000, 1)}

    def _attribute_elapsed(self) -> None:
        now = self._clock()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last_time
        self._last_time = now
