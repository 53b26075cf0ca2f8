"""One network shared by many callers, whose inputs are batched."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Network = Callable[..., Sequence[Array]]


class PendingCall:
    """One caller's inputs, each (1, ...), and their outputs or error."""

    def __init__(self, inputs: tuple[Array, ...]) -> None:
        self.inputs = inputs
        self.outputs: list[Array] | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.outputs is not None or self.error is not None


class BatchingNetwork:
    """Queues calls from any threads; the caller that gets the lock runs the oldest calls as one batch.

    It has no thread of its own, and runs one batch at a time.
    """

    def __init__(self, network: Network, max_batch_size: int = 1) -> None:
        """Wrap a network. max_batch_size: inputs in one batch; more than one is only faster on a GPU."""
        self._network = network
        self._most = max_batch_size
        self._waiting: deque[PendingCall] = deque()
        self._lock = threading.Lock()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """Run the network. inputs: each (1, ...). Returns: one (1, ...) array per output."""
        call = PendingCall(inputs)
        self._waiting.append(call)
        while not call.is_done:
            with self._lock:
                if not call.is_done:
                    self._run([self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))])
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _run(self, calls: list[PendingCall]) -> None:
        try:
            inputs = zip(*(call.inputs for call in calls), strict=True)
            batch = [np.concatenate(each) if len(calls) > 1 else each[0] for each in inputs]
            outputs = self._network(*batch)
            for i, call in enumerate(calls):
                call.outputs = [np.asarray(output[i : i + 1]) for output in outputs]
        except BaseException as err:  # the call that caused it is unknown: raise it in all
            for call in calls:
                call.error = err
            if not isinstance(err, Exception):
                raise
