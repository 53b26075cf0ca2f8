"""One network for many callers at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Network = Callable[..., Sequence[Array]]


class Call:
    """One caller's inputs, each (1, ...), and what came of them."""

    def __init__(self, inputs: tuple[Array, ...]) -> None:
        self.inputs = inputs
        self.outputs: list[Array] | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.outputs is not None or self.error is not None


class SharedNetwork:
    """Callers in any threads wait in line; whoever's turn it is runs those that came first, several in one batch.

    Without threads of its own: as many run at a time as the network takes, which is one.
    """

    def __init__(self, network: Network, most_at_once: int = 1) -> None:
        """most_at_once: inputs in one batch; more than one pays on a GPU alone."""
        self._network = network
        self._most = most_at_once
        self._waiting: deque[Call] = deque()
        self._turn = threading.Lock()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """inputs: each (1, ...). Returns: one (1, ...) array per output."""
        call = Call(inputs)
        self._waiting.append(call)
        while not call.is_done:
            with self._turn:
                if not call.is_done:
                    self._run([self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))])
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _run(self, calls: list[Call]) -> None:
        try:
            inputs = zip(*(call.inputs for call in calls), strict=True)
            together = [np.concatenate(each) if len(calls) > 1 else each[0] for each in inputs]
            outputs = self._network(*together)
            for i, call in enumerate(calls):
                call.outputs = [np.asarray(output[i : i + 1]) for output in outputs]
        except BaseException as err:  # whose it is cannot be known: each of them gets it
            for call in calls:
                call.error = err
            if not isinstance(err, Exception):
                raise
