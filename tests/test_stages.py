from inference.stages import StageClock


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_stage_gets_its_own_time_and_not_its_suppliers():
    hand = Hand()
    clock = StageClock(hand)

    def make():
        for i in range(3):
            hand.now += 1
            yield i

    def double(items):
        for item in items:
            hand.now += 10
            yield item * 2

    made = clock.watch("make", make())
    assert list(clock.watch("double", double(made))) == [0, 2, 4]
    assert clock.seconds == {"double": 30, "make": 3}


def test_time_outside_the_stages_is_nobodys():
    hand = Hand()
    clock = StageClock(hand)
    with clock.stage("a"):
        hand.now += 1
    hand.now += 100
    with clock.stage("a"):
        hand.now += 1
    assert clock.as_ms() == {"a": 2000.0, "total": 2000.0}
