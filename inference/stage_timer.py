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

    For one thread; `branch` returns a clock for stages in another. Stages that overlap each get all of their time, so
    that their sum may exceed the total.

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
        self._running: list[str | None] = []  # None: waiting
        self._last_time = clock()
        self._total = 0.0  # seconds in which a stage was running, or waiting for another thread
        self._branches: list[StageClock] = []
        self._last_stage = ""  # that has yielded an item

    def branch(self) -> StageClock:
        """Return a clock for stages that run in another thread; this one adds what it measures to its own.

        This one checks the deadlines of both: see `check_branches`.
        """
        branch = StageClock(self._clock)
        self._branches.append(branch)
        return branch

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Attribute the time inside the context to `name`, and not to the enclosing stage."""
        with self._enter(name):
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Attribute the time inside the context to no stage, because another thread works; it counts in the total."""
        with self._enter(None):
            yield

    @contextmanager
    def _enter(self, name: str | None) -> Iterator[None]:
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
        self._last_stage = stage
        self._on_item()
        if not self._deadlines:
            return
        total_s, seconds = self._measured()
        for one in self._deadlines:
            counted_s = total_s if one.stages is None else sum(seconds.get(name, 0.0) for name in one.stages)
            if counted_s > one.seconds:
                raise DeadlineExceeded(f"{one.name} took over {one.seconds:g} s, which is its limit (last: {stage})")

    def check_branches(self) -> None:
        """Check the deadlines while stages run in other threads. Raises: as `check`."""
        self.check(next((branch._last_stage for branch in self._branches if branch._last_stage), self._last_stage))

    def as_ms(self) -> dict[str, float]:
        """Return the milliseconds of each stage so far, and those of all as "total": without overlap, their sum."""
        total_s, seconds = self._measured()
        stages = {name: round(seconds_of * 1000, 1) for name, seconds_of in seconds.items()}
        return stages | {"total": round(total_s * 1000, 1)}

    def _measured(self) -> tuple[float, dict[str, float]]:
        """Return the seconds in total, and of each stage, with those of other threads."""
        self._attribute_elapsed()
        seconds: dict[str, float] = {}
        # Copies: their threads may be adding to them. The stages of branches come first, as they run first.
        for measured in (*(branch.seconds.copy() for branch in self._branches), self.seconds):
            for name, seconds_of in measured.items():
                seconds[name] = seconds.get(name, 0.0) + seconds_of
        return self._total, seconds

    def _attribute_elapsed(self) -> None:
        now = self._clock()
        if self._running:
            self._total += now - self._last_time
            name = self._running[-1]
            if name is not None:
                self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last_time
        self._last_time = now
