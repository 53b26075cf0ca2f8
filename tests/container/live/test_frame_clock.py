from __future__ import annotations

import asyncio
import random

from container.live.frame_clock import FPS, FrameClock


class SimulatedClock:
    """A clock that advances only in `sleep`, which is inexact, and in `work`."""

    def __init__(self, seed: int) -> None:
        self.now_s = 1000.0
        self._rng = random.Random(seed)

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        # Some sleeps end a little early, as timers do.
        self.now_s += max(seconds + self._rng.uniform(-0.0005, 0.003), 1e-6)

    def work(self, low_s: float, high_s: float) -> None:
        self.now_s += self._rng.uniform(low_s, high_s)


def test_an_hour_of_frames_does_not_drift():
    clock = SimulatedClock(3)
    frame_clock = FrameClock(clock.now, clock.sleep)

    async def run() -> list[float]:
        lateness = []
        for frame in range(3600 * FPS):
            await frame_clock.wait_until_due(frame)
            lateness.append(frame_clock.lateness_s(frame))
            clock.work(0.0, 0.035)
        return lateness

    lateness = asyncio.run(run())
    assert min(lateness) >= 0
    assert max(lateness) < 0.004
    assert max(lateness[-100:]) < 0.004


def test_late_frames_catch_up():
    clock = SimulatedClock(4)
    frame_clock = FrameClock(clock.now, clock.sleep)

    async def run() -> None:
        await frame_clock.wait_until_due(10)
        clock.work(1.0, 1.0)  # the engine stalled for a second
        for frame in range(11, 60):
            await frame_clock.wait_until_due(frame)
            clock.work(0.005, 0.005)
        assert frame_clock.lateness_s(59) < 0.01

    asyncio.run(run())


def test_frames_whose_turn_comes_late_are_counted():
    clock = SimulatedClock(3)
    frame_clock = FrameClock(clock.now, clock.sleep)

    async def run() -> None:
        for frame in range(5):
            await frame_clock.wait_until_due(frame)
            if frame == 1:
                clock.now_s += 0.09  # frame 2 is 50 ms late, and frame 3 no more than 10

    asyncio.run(run())
    assert (frame_clock.counts.n_frames, frame_clock.counts.n_late) == (5, 1)
