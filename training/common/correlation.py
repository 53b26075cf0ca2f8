"""Pearson's correlation."""

from __future__ import annotations

import numpy as np

from training.common.arrays import Floats


def correlate(one: Floats, other: Floats, min_deviation: float = 0.0) -> float | None:
    """Return the correlation of two curves of equal length; None if the standard deviation of either is too small."""
    if min(one.std(), other.std()) <= min_deviation:
        return None
    return float(np.corrcoef(one, other)[0, 1])
