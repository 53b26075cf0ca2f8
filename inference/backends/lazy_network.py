"""A network that is loaded when it is first called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Network = Callable[..., Sequence[Array]]


class LazyNetwork:
    """A network that many runs do not need. May be called from several threads, if the network may."""

    def __init__(self, load: Callable[[], Network]) -> None:
        """load: loads the network; called once, unless it raises."""
        self._load = load
        self._network: Network | None = None
        self._lock = threading.Lock()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        with self._lock:
            if self._network is None:
                self._network = self._load()
        return self._network(*inputs)
