import threading
import time
from collections.abc import Iterator

import pytest

from inference.errors import Canceled, DeadlineExceeded
from inference.run_ahead import RunAhead
from inference.stage_timer import Deadline, StageClock

WAIT_S = 30  # at most, for what another thread does at once


class Source:
    """An iterator of numbers that records how many it made, in which thread, and whether it was closed there."""

    def __init__(self, n: int, error: Exception | None = None) -> None:
        self.n_made = 0
        self.closed_in: threading.Thread | None = None
        self._n, self._error = n, error

    def numbers(self) -> Iterator[int]:
        try:
            for i in range(self._n):
                self.n_made += 1
                yield i
            if self._error is not None:
                raise self._error
        finally:
            self.closed_in = threading.current_thread()

    def wait_until_made(self, n: int) -> None:
        end = time.monotonic() + WAIT_S
        while self.n_made < n:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.mark.parametrize("n_ahead", [1, 7, 1000])
def test_items_come_in_their_order(n_ahead: int):
    with RunAhead(iter(range(500)), n_ahead, StageClock()) as ahead:
        assert list(ahead) == list(range(500))
        assert list(ahead) == []


def test_items_are_made_in_another_thread_at_most_so_many_ahead():
    source = Source(100)
    with RunAhead(source.numbers(), 3, StageClock()) as ahead:
        source.wait_until_made(3)
        assert next(ahead) == 0
        source.wait_until_made(4)
        time.sleep(0.05)
        assert source.n_made == 4
    assert source.closed_in not in (None, threading.current_thread())


def test_an_error_of_the_items_comes_after_those_before_it():
    source = Source(2, ValueError("broken"))
    with RunAhead(source.numbers(), 10, StageClock()) as ahead:
        source.wait_until_made(2)
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_an_error_of_the_consumer_ends_the_thread(error: type[BaseException]):
    source, before = Source(10**9), threading.active_count()

    def consume() -> None:
        with RunAhead(source.numbers(), 2, StageClock()) as ahead:
            next(ahead)
            raise error

    with pytest.raises(error):
        consume()
    assert source.closed_in is not None
    assert threading.active_count() == before


def test_leaving_before_the_first_item_is_taken_ends_the_thread():
    source, before = Source(10**9), threading.active_count()
    with RunAhead(source.numbers(), 1, StageClock()):
        pass
    assert threading.active_count() == before


def test_an_error_while_the_items_are_closed_is_not_lost():
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("the disk is full")

    with RunAhead(numbers(), 1, StageClock()) as ahead, pytest.raises(OSError, match="full"):
        list(ahead)


def test_the_consumer_is_called_while_nothing_is_ready():
    released = threading.Event()

    def numbers() -> Iterator[int]:
        released.wait(WAIT_S)
        yield 1

    def cancel() -> None:
        released.set()
        raise Canceled("the request was canceled")

    with pytest.raises(Canceled), RunAhead(numbers(), 1, StageClock(on_item=cancel)) as ahead:
        next(ahead)
    assert released.is_set()


def test_stages_of_both_threads_are_counted():
    seconds = threading.local()
    clock = StageClock(lambda: getattr(seconds, "now", 0.0))

    def numbers() -> Iterator[int]:
        for i in range(5):
            seconds.now = getattr(seconds, "now", 0.0) + 2
            yield i

    with RunAhead(clock.branch().watch("make", numbers()), 2, clock) as ahead:
        for _ in clock.watch("take", ahead):
            seconds.now = getattr(seconds, "now", 0.0) + 1
    assert clock.as_ms() == {"make": 10_000, "take": 0, "total": 0}


def test_a_deadline_counts_the_time_of_stages_in_the_other_thread():
    clock = StageClock(deadlines=(Deadline("decoding", 0.05, ("decode",)),))

    def numbers() -> Iterator[int]:
        while True:
            time.sleep(0.01)
            yield 1

    with (
        pytest.raises(DeadlineExceeded, match=r"decoding took over 0.05 s, which is its limit \(last: decode\)"),
        RunAhead(clock.branch().watch("decode", numbers()), 2, clock) as ahead,
    ):
        list(ahead)
