"""Deformation of the skin by the mouth shape: one field above the line between the lips, one below.

Both fields are smooth over the whole face and agree beyond the corners of the mouth. Between the corners they differ,
and the gap is the open mouth. Each is a sum of fixed basis fields, weighted by the shape. Units of the mesh, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.matrix_product import multiply
from inference.rendering.geometry import (
    DEPTH_STEPS,
    NOSE_BASE,
    Mesh,
    Plane,
    Points,
    as_float32,
    gaussian,
    plane_axes,
    smoothstep,
)
from inference.rendering.geometry import sample_plane as sample
from inference.rendering.mouth_shape import MouthShape

BasisFields = npt.NDArray[np.float32]  # (9, rows, columns): displacement of the skin for a weight of 1

INVERSION_STEPS = 6  # of the fixed-point iteration; each leaves less than half the error
LOWER_SHARE, UPPER_SHARE, CORNER_SHARE = 0.80, 0.20, 0.28  # movement of lips and corners, as shares of the gap
CHIN_SHARE = 0.85  # movement of the chin, as a share of the gap
TEETH_GAP, TONGUE_GAP = 0.34, 0.5  # smallest gap that shows them
LIP_EXTENT = 2.2  # below the seam: the lower lip's own movement ends and the chin moves fully


@dataclass(frozen=True)
class MouthDeformation:
    """Deformation of one face's skin by one mouth shape.

    gap: between the inner lips, at the middle. spread: widening of the mouth, 0 at rest.
    upper, lower: (rows, columns, 2) float32, displacement of skin that rests above and below the line between the lips.
    """

    gap: float
    spread: float
    upper: Plane
    lower: Plane

    @classmethod
    def from_shape(cls, fields: BasisFields, mouth: MouthShape, brow: float = 0.0) -> MouthDeformation:
        """Weight the basis fields by a mouth shape. brow: 1 is raised."""
        gap = (mouth.open**4 + (TEETH_GAP * mouth.teeth) ** 4 + (TONGUE_GAP * mouth.tongue) ** 4) ** 0.25
        gap *= 1 - mouth.press
        spread = 0.24 * mouth.wide - 0.36 * mouth.round + 0.05 * mouth.press
        swell = 0.06 * mouth.round - 0.12 * mouth.wide - 0.55 * mouth.press
        aside = [spread, 0, 0, 0, 0, 0, 0, 0, 0]
        both = [0, CORNER_SHARE * gap, swell, -0.22 * mouth.wide, -0.45 * brow]
        chin = (CHIN_SHARE - CORNER_SHARE) * gap - 0.22 * mouth.tuck
        lower = [*both, chin, (LOWER_SHARE - CORNER_SHARE) * gap, -0.42 * mouth.tuck, 0]
        upper = [*both, 0, 0, 0, -(UPPER_SHARE + CORNER_SHARE) * gap - 0.16 * mouth.tuck]
        moved = multiply(as_float32([aside, upper, lower]), fields.reshape(len(fields), -1))
        dx, up, down = moved.reshape(3, *fields.shape[1:])
        return cls(gap, spread, np.dstack([dx, up]), np.dstack([dx, down]))

    def displacement(self, at: Points, lower: bool) -> Points:
        """Return the displacement of skin that rests at `at` (rows, columns, 2), same shape."""
        return sample(self.lower if lower else self.upper, at, DEPTH_STEPS)

    def rest_position(self, at: Points, lower: bool) -> Points:
        """Return the rest position of the skin seen at `at` (rows, columns, 2): the inverse of the displacement."""
        rest = at
        for _ in range(INVERSION_STEPS):
            rest = at - self.displacement(rest, lower)
        return rest


def basis_fields(mesh: Mesh) -> BasisFields:
    """Return the displacement of each point of the plane per basis field, in the order that `from_shape` needs."""
    x, y = plane_axes(DEPTH_STEPS)
    x, y = np.broadcast_arrays(x, y)
    side, corner = np.abs(x), mesh.corner
    v = y - mesh.seam_at(x)
    parted = np.maximum(1 - (side / corner) ** 2, 0)
    chin = smoothstep(v, 0, LIP_EXTENT)
    near = smoothstep(y, NOSE_BASE, 3.2) * gaussian(v, 0, 1.7) * (1 - smoothstep(side, corner, corner + 3))
    reach = np.minimum(side, corner) * (1 - smoothstep(side, corner, corner + 4))
    fields = [
        np.sign(x) * reach * gaussian(v, 0, 2.0) * smoothstep(y, NOSE_BASE - 0.4, 3.0),  # corners, sideways
        smoothstep(y, NOSE_BASE - 0.4, 4.2) * (1 - smoothstep(side, 3.5, 7.6)),  # cheeks and corners, with the jaw
        v * near,  # fullness of the lips
        np.minimum(side / corner, 1.3) ** 2 * near,  # corners, upwards
        gaussian(y, -4.8, 1.3) * (1 - smoothstep(side, 4.5, 7.0)),  # brows
        chin * (1 - smoothstep(side, 4.2, 7.4)),
        parted * (1 - chin),  # the lower lip, away from the upper
        parted**0.5 * (1 - chin),  # the lower lip, as a whole
        parted * smoothstep(v, -LIP_EXTENT, 0),  # the upper lip
    ]
    return as_float32(np.stack(fields))


def deform_points(deformation: MouthDeformation, points: Points, is_lower: npt.NDArray[np.bool_]) -> Points:
    """Return displaced points (n, 2). is_lower: (n,), points that the lower field moves."""
    lower, upper = (deformation.displacement(points[:, None], lower=which)[:, 0] for which in (True, False))
    return as_float32(points + np.where(is_lower[:, None], lower, upper))
