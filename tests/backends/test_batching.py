from __future__ import annotations

import threading
import time

import numpy as np
import pytest

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


def test_an_error_reaches_its_caller_and_the_next_call_works():
    def pick(x: np.ndarray) -> list[np.ndarray]:
        if x[0] < 0:
            raise ValueError("below zero")
        return [x]

    network = BatchingNetwork(pick)
    with pytest.raises(ValueError, match="below zero"):
        network(np.array([-1]))
    assert network(np.array([3]))[0] == 3
