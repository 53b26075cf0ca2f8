"""How long each stage of a streaming pipeline takes, and may take."""

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
    """How long some stages may take together.

    name: what a caller is told of them. stages: by the clock's names; None for all there are.
    """

    name: str
    seconds: float
    stages: tuple[str, ...] | None = None


def no_check() -> None:
    """Nothing to look up."""


class StageClock:
    """Shares out time among stages that pull from one another: each gets its own, not its suppliers'.

    clock: seconds; wall time by default, `time.process_time` to count CPU time. deadlines: looked at
    whenever a stage hands something on, as `on_item` is called: what it raises ends the work.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        deadlines: Sequence[Deadline] = (),
        on_item: Callable[[], None] = no_check,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self.seconds_in_call: dict[str, float] = {}
        self._deadlines = tuple(deadlines)
        self._on_item = on_item
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
            self.check(name)
            yield item

    def timed(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """The same call; the time it takes is counted for its stage as before, and by `name` apart from that."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            start = self._clock()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds_in_call[name] = self.seconds_in_call.get(name, 0.0) + self._clock() - start

        return run

    def check(self, stage: str) -> None:
        """stage: what has just handed something on.

        Raises: DeadlineExceeded naming what took too long, and whatever `on_item` raises.
        """
        self._on_item()
        if self._deadlines:
            self._settle()
        for one in self._deadlines:
            counted = self.seconds if one.stages is None else one.stages
            if sum(self.seconds.get(name, 0.0) for name in counted) > one.seconds:
                raise DeadlineExceeded(f"{one.name} took over {one.seconds:g} s, which is its limit (last: {stage})")

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
