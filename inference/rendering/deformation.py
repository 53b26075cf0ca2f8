"""How a mouth's shape moves the skin of the face: one field above the line where the lips meet, one below.

Both are smooth over the whole face and agree beyond the corners of the mouth; between the corners they part,
and the gap is the open mouth. Each is a sum of fixed pulls, weighed by the shape. Units of the mesh, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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

BasisFields = npt.NDArray[np.float32]  # (9, rows, columns): how much skin gives way to each of the pulls below

INVERSION_STEPS = 6  # steps of the fixed-point search; each leaves less than half the error
LOWER_SHARE, UPPER_SHARE, CORNER_SHARE = 0.80, 0.20, 0.28  # of the gap: how far lips and corners go
CHIN_SHARE = 0.85
TEETH_GAP, TONGUE_GAP = 0.34, 0.5  # the least gap that shows them
LIP_EXTENT = 2.2  # below the seam, where the lower lip's own movement ends and the chin's is whole


@dataclass(frozen=True)
class MouthDeformation:
    """What a shape does to one face's skin.

    gap: between the inner lips, at the middle. spread: how much wider the mouth is, 0 as at rest.
    upper, lower: (rows, columns, 2) float32, how far skin moves that rests above, below the line of the lips.
    """

    gap: float
    spread: float
    upper: Plane
    lower: Plane

    @classmethod
    def from_shape(cls, fields: BasisFields, mouth: MouthShape, brow: float = 0.0) -> MouthDeformation:
        gap = (mouth.open**4 + (TEETH_GAP * mouth.teeth) ** 4 + (TONGUE_GAP * mouth.tongue) ** 4) ** 0.25
        gap *= 1 - mouth.press
        spread = 0.24 * mouth.wide - 0.36 * mouth.round + 0.05 * mouth.press
        swell = 0.06 * mouth.round - 0.12 * mouth.wide - 0.55 * mouth.press
        aside = [spread, 0, 0, 0, 0, 0, 0, 0, 0]
        both = [0, CORNER_SHARE * gap, swell, -0.22 * mouth.wide, -0.45 * brow]
        chin = (CHIN_SHARE - CORNER_SHARE) * gap - 0.22 * mouth.tuck
        lower = [*both, chin, (LOWER_SHARE - CORNER_SHARE) * gap, -0.42 * mouth.tuck, 0]
        upper = [*both, 0, 0, 0, -(UPPER_SHARE + CORNER_SHARE) * gap - 0.16 * mouth.tuck]
        moved = as_float32([aside, upper, lower]) @ fields.reshape(len(fields), -1)
        dx, up, down = moved.reshape(3, *fields.shape[1:])
        return cls(gap, spread, np.dstack([dx, up]), np.dstack([dx, down]))

    def displacement(self, at: Points, lower: bool) -> Points:
        """Where skin that rests at `at` (rows, columns, 2) goes: displacement, of the same shape."""
        return sample(self.lower if lower else self.upper, at, DEPTH_STEPS)

    def rest_position(self, at: Points, lower: bool) -> Points:
        """Which skin is seen at `at` (rows, columns, 2): the inverse of `move`."""
        rest = at
        for _ in range(INVERSION_STEPS):
            rest = at - self.displacement(rest, lower)
        return rest


def basis_fields(mesh: Mesh) -> BasisFields:
    """How skin at each point of the plane gives way, in the order that `Bend.from_shape` weighs."""
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
        smoothstep(y, NOSE_BASE - 0.4, 4.2)
        * (1 - smoothstep(side, 3.5, 7.6)),  # cheeks and corners that follow the jaw
        v * near,  # lips that swell
        np.minimum(side / corner, 1.3) ** 2 * near,  # corners, upwards
        gaussian(y, -4.8, 1.3) * (1 - smoothstep(side, 4.5, 7.0)),  # brows
        chin * (1 - smoothstep(side, 4.2, 7.4)),
        parted * (1 - chin),  # the lower lip, away from the upper
        parted**0.5 * (1 - chin),  # the lower lip, as a whole
        parted * smoothstep(v, -LIP_EXTENT, 0),  # the upper lip
    ]
    return as_float32(np.stack(fields))


def deform_points(deformation: MouthDeformation, points: Points, is_lower: npt.NDArray[np.bool_]) -> Points:
    """Displaced points (n, 2); those of the lower field are told by `is_lower` (n,)."""
    lower, upper = (deformation.displacement(points[:, None], lower=which)[:, 0] for which in (True, False))
    return as_float32(points + np.where(is_lower[:, None], lower, upper))
