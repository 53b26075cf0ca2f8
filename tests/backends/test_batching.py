from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.waiting import wait_until

from inference.backends.batching import BatchingNetwork


class Doubler:
    """A slow network that fails if two calls overlap."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self._inside = 0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        self._inside += 1
        assert self._inside == 1
        self.batches.append(len(x))
        time.sleep(0.005)
        self._inside -= 1
        return [2 * x, x + y]


def call_at_once(network: BatchingNetwork, n: int) -> dict[int, list[np.ndarray]]:
    outputs: dict[int, list[np.ndarray]] = {}

    def call(i: int) -> None:
        outputs[i] = list(network(np.full((1, 3), i), np.full((1, 3), 10)))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outputs


@pytest.mark.parametrize("most", [1, 4])
def test_each_caller_gets_its_own_output(most: int):
    doubler = Doubler()
    outputs = call_at_once(BatchingNetwork(doubler, most), 12)
    for i in range(12):
        np.testing.assert_array_equal(outputs[i][0], np.full((1, 3), 2 * i))
        np.testing.assert_array_equal(outputs[i][1], np.full((1, 3), 10 + i))
    assert sum(doubler.batches) == 12
    assert max(doubler.batches) <= most
    assert len(doubler.batches) == 12 if most == 1 else len(doubler.batches) < 12


def test_a_lone_caller_runs_at_once_and_alone():
    doubler = Doubler()
    network = BatchingNetwork(doubler, 4)
    assert network(np.ones((6, 3)), np.ones((6, 3)))[0].shape == (6, 3)  # more rows than a batch of several callers has
    assert doubler.batches == [6]


class HeldNetwork:
    """Waits in its first call until it is released, so that the calls behind it are queued; then refuses negatives."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.is_entered, self.is_released = threading.Event(), threading.Event()

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        self.is_entered.set()
        assert self.is_released.wait(60)
        self.batches.append(x.shape)
        if (x < 0).any():
            raise ValueError("below zero")
        return [x + 1]


def run_behind(held: HeldNetwork, network: BatchingNetwork, inputs: list[np.ndarray]) -> list[np.ndarray | Exception]:
    """Queue calls in order behind one that is held; return the output or the error of each."""
    found: dict[int, np.ndarray | Exception] = {}

    def call(i: int, x: np.ndarray) -> None:
        try:
            found[i] = network(x)[0]
        except ValueError as err:
            found[i] = err

    first = threading.Thread(target=call, args=(-1, np.zeros((1, 1))))
    first.start()
    assert held.is_entered.wait(60)
    threads = [first]
    for i, x in enumerate(inputs):
        threads.append(threading.Thread(target=call, args=(i, x)))
        threads[-1].start()
        wait_until(lambda: len(network._waiting) == len(threads) - 1)
    held.is_released.set()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(inputs))]


def test_calls_of_several_rows_are_batched_up_to_the_limit_and_only_if_their_shapes_agree():
    held = HeldNetwork()
    shapes = [(2, 3), (1, 3), (2, 3), (1, 5), (1, 5)]
    inputs = [np.full(shape, i, np.float32) for i, shape in enumerate(shapes)]
    outputs = run_behind(held, BatchingNetwork(held, 4), inputs)
    for x, output in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(output, x + 1)
    assert held.batches == [(1, 1), (3, 3), (2, 3), (2, 5)]


def test_one_callers_bad_input_does_not_fail_the_others():
    held = HeldNetwork()
    outputs = run_behind(held, BatchingNetwork(held, 4), [np.full((1, 2), value) for value in (5.0, -1.0, 7.0)])
    np.testing.assert_array_equal(outputs[0], np.full((1, 2), 6.0))
    assert isinstance(outputs[1], ValueError)
    np.testing.assert_array_equal(outputs[2], np.full((1, 2), 8.0))
    assert held.batches == [(1, 1), (3, 2), (1, 2), (1, 2), (1, 2)]


def test_an_error_reaches_its_caller_and_the_next_call_works():
    def pick(x: np.ndarray) -> list[np.ndarray]:
        if x[0] < 0:
            raise ValueError("below zero")
        return [x]

    network = BatchingNetwork(pick)
    with pytest.raises(ValueError, match="below zero"):
        network(np.array([-1]))
    assert network(np.array([3]))[0] == 3
