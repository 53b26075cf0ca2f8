"""Pearson's correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.floating[Any]]  # (T,) one value per frame


def correlate(one: Curve, other: Curve, min_deviation: float = 0.0) -> float | None:
    """Return the correlation of two curves of equal length; None if the standard deviation of either is too small."""
    if min(one.std(), other.std()) <= min_deviation:
        return None
    return float(np.corrcoef(one, other)[0, 1])
