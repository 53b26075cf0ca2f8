import pytest

from inference.errors import DeadlineExceeded
from inference.stage_timer import Deadline, StageClock


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_stage_gets_its_own_time_and_not_that_of_its_inputs():
    time_source = ManualClock()
    clock = StageClock(time_source)

    def make():
        for i in range(3):
            time_source.now += 1
            yield i

    def double(items):
        for item in items:
            time_source.now += 10
            yield item * 2

    made = clock.watch("make", make())
    assert list(clock.watch("double", double(made))) == [0, 2, 4]
    assert clock.seconds == {"double": 30, "make": 3}


def test_time_outside_the_stages_is_not_counted():
    time_source = ManualClock()
    clock = StageClock(time_source)
    with clock.stage("a"):
        time_source.now += 1
    time_source.now += 100
    with clock.stage("a"):
        time_source.now += 1
    assert clock.as_ms() == {"a": 2000.0, "total": 2000.0}


def test_waiting_counts_in_the_total_but_for_no_stage():
    time_source = ManualClock()
    clock = StageClock(time_source, deadlines=(Deadline("the job", 10),))
    with clock.stage("a"):
        time_source.now += 1
        with clock.waiting():
            time_source.now += 10
        assert clock.as_ms() == {"a": 1000.0, "total": 11000.0}
        with pytest.raises(DeadlineExceeded, match="the job"):
            clock.check("a")


def test_a_deadline_counts_its_own_stages_and_names_itself():
    time_source = ManualClock()
    clock = StageClock(time_source, deadlines=(Deadline("decoding", 5, ("open", "decode")), Deadline("the job", 100)))

    def make():
        for _ in range(5):
            time_source.now += 2
            yield time_source.now

    with clock.stage("draw"):
        time_source.now += 50
    items = clock.watch("decode", make())
    assert [next(items), next(items)] == [52, 54]
    with pytest.raises(DeadlineExceeded, match=r"decoding took over 5 s, which is its limit \(last: decode\)"):
        next(items)


def test_the_stage_that_runs_counts_for_the_whole():
    time_source = ManualClock()
    clock = StageClock(time_source, deadlines=(Deadline("the job", 100),))
    with clock.stage("draw"):
        time_source.now += 100
        clock.check("draw")
        time_source.now += 1
        with pytest.raises(DeadlineExceeded, match=r"the job took over 100 s.*last: draw"):
            clock.check("draw")


def test_a_callback_can_end_the_work_at_any_item():
    def disconnect() -> None:
        raise ConnectionResetError

    clock = StageClock(on_item=disconnect)
    with pytest.raises(ConnectionResetError):
        next(clock.watch("decode", iter([1])))


def test_a_timed_call_is_also_counted_by_name():
    time_source = ManualClock()
    clock = StageClock(time_source)

    def work(seconds: int) -> int:
        time_source.now += seconds
        return seconds

    with clock.stage("model"):
        assert clock.timed("one", work)(3) + clock.timed("one", work)(4) == 7
    assert clock.seconds_in_call == {"one": 7}
    assert clock.as_ms() == {"model": 7000.0, "total": 7000.0}
