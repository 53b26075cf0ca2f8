"""The shape of a mouth at one moment."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

MAX_OPEN = 1.8  # upper limit of `MouthShape.open`


@dataclass(frozen=True)
class MouthShape:
    """Mouth shape, as parameters that mean the same on every face.

    open: 0..1.8, the gap between the inner lips at the middle, in units of the canonical face mesh (about cm).
    The others go from 0 (at rest) to 1.
    """

    open: float = 0.0
    wide: float = 0.0  # corners drawn apart, as in "see"
    round: float = 0.0  # corners drawn in and lips pushed forward, as in "blue"
    press: float = 0.0  # lips pressed together and thin, as in b, m, p
    tuck: float = 0.0  # lower lip tucked under the upper teeth, as in f, v
    teeth: float = 0.0  # upper teeth visible behind the lips, as in s, z, e
    tongue: float = 0.0  # tip of the tongue visible at the upper teeth, as in l, th

    @classmethod
    def from_row(cls, row: npt.NDArray[np.float64]) -> MouthShape:
        """Create a shape from an array (7,) in the order of the fields: the inverse of `row`."""
        return cls(*(float(value) for value in row))

    def row(self) -> npt.NDArray[np.float64]:
        """Return the parameters as an array (7,), in the order of the fields."""
        return np.array(astuple(self))
