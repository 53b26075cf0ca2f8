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
    """One caller's inputs, each (n, ...) with the same n, and their outputs or error."""

    def __init__(self, inputs: tuple[Array, ...]) -> None:
        self.inputs = inputs
        self.outputs: list[Array] | None = None
        self.error: BaseException | None = None

    @property
    def n_rows(self) -> int:
        return len(self.inputs[0])

    @property
    def is_done(self) -> bool:
        return self.outputs is not None or self.error is not None

    def fits(self, other: PendingCall) -> bool:
        """Return whether both can be in one batch: their rows have the same shapes and types."""
        return len(self.inputs) == len(other.inputs) and all(
            a.shape[1:] == b.shape[1:] and a.dtype == b.dtype for a, b in zip(self.inputs, other.inputs, strict=True)
        )


class BatchingNetwork:
    """Queues calls from any threads; the caller that gets the lock runs the oldest calls as one batch.

    It has no thread of its own, and runs one batch at a time. A call waits for nothing but the batch that runs: what
    arrives meanwhile is the next one. So a lone caller never waits, and the busier the network, the larger its batches.
    """

    def __init__(self, network: Network, max_batch_size: int = 1) -> None:
        """Wrap a network. max_batch_size: rows in one batch of several calls; more than one is only faster on a GPU."""
        self._network = network
        self._most = max_batch_size
        self._waiting: deque[PendingCall] = deque()
        self._lock = threading.Lock()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """Run the network. inputs: (n, ...) each. Returns: one (n, ...) array per output. Raises: its errors."""
        call = PendingCall(inputs)
        self._waiting.append(call)
        while not call.is_done:
            with self._lock:
                if not call.is_done:
                    self._run(self._take_batch())
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _take_batch(self) -> list[PendingCall]:
        """Remove the oldest call and those right behind it that fit into a batch with it."""
        batch = [self._waiting.popleft()]
        n_rows = batch[0].n_rows
        while self._waiting and batch[0].fits(self._waiting[0]):
            n_rows += self._waiting[0].n_rows
            if n_rows > self._most:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _run(self, calls: list[PendingCall]) -> None:
        """Run a batch. If it fails, run its calls one by one: only the one that caused the error gets it."""
        try:
            inputs = zip(*(call.inputs for call in calls), strict=True)
            batch = [np.concatenate(each) if len(calls) > 1 else each[0] for each in inputs]
            outputs = [np.asarray(output) for output in self._network(*batch)]
        except Exception as err:  # noqa: BLE001 - raised in the caller's thread
            if len(calls) == 1:
                calls[0].error = err
                return
            for call in calls:
                self._run([call])
        except BaseException as err:  # such as an interrupt of this thread: the other callers must not wait for ever
            for call in calls:
                call.error = err
            raise
        else:
            start = 0
            for call in calls:
                call.outputs = [output[start : start + call.n_rows] for output in outputs]
                start += call.n_rows
