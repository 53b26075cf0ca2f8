from __future__ import annotations

import numpy as np
import pytest

from training.common.lips import shape_gap

OPEN, PRESS, TEETH = 0, 3, 5  # columns of a mouth shape


def test_gaps_of_shapes():
    shapes = np.zeros((4, 7), np.float32)
    shapes[0, OPEN] = 1.2
    shapes[1, [OPEN, PRESS]] = 1.2, 1.0
    shapes[2, TEETH] = 1.0
    assert shape_gap(shapes) == pytest.approx([1.2, 0, 0.34, 0], abs=1e-6)
