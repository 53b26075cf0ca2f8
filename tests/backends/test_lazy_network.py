from __future__ import annotations

import numpy as np
import pytest

from inference.backends.lazy_network import LazyNetwork


def test_loads_at_the_first_call_and_once():
    loads = []

    def load():
        loads.append(True)
        return lambda x: [2 * x]

    network = LazyNetwork(load)
    assert not loads
    assert [network(np.ones(1))[0].item() for _ in range(2)] == [2, 2]
    assert len(loads) == 1


def test_loads_again_after_an_error():
    outcomes = iter([OSError("disk full"), lambda x: [x]])

    def load():
        found = next(outcomes)
        if isinstance(found, OSError):
            raise found
        return found

    network = LazyNetwork(load)
    with pytest.raises(OSError, match="disk full"):
        network(np.ones(1))
    assert network(np.ones(1))[0].item() == 1
