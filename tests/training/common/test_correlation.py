from __future__ import annotations

import numpy as np
import pytest

from training.common.correlation import correlate


def test_correlation():
    rising = np.arange(5.0)
    assert correlate(rising, rising * 2 + 1) == pytest.approx(1)
    assert correlate(rising, -rising) == pytest.approx(-1)
    assert correlate(rising, np.ones(5)) is None
