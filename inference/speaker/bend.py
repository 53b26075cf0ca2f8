"""How a mouth's shape moves the skin of the face: one field above the line where the lips meet, one below.

Both are smooth over the whole face and agree beyond the corners of the mouth; between the corners they part,
and the gap is the open mouth. Units of the mesh, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.speaker.geometry import NOSE_BASE, Mesh, Plane, Points, bell, floats, ramp
from inference.speaker.mouth import MouthShape

INVERSIONS = 7  # steps of the fixed-point search; each leaves less than half the error
LOWER_SHARE, UPPER_SHARE, CORNER_SHARE = 0.80, 0.20, 0.28  # of the gap: how far lips and corners go
CHIN_SHARE = 0.85
TEETH_GAP, TONGUE_GAP = 0.34, 0.5  # the least gap that shows them
LIP_REACH = 2.2  # below the seam, where the lower lip's own movement ends and the chin's is whole


@dataclass(frozen=True)
class Bend:
    """What a shape does to one face's skin, as few numbers."""

    mesh: Mesh
    gap: float  # between the inner lips, at the middle
    spread: float  # factor of x around the mouth, less 1
    swell: float  # factor of the lips' height, less 1
    lift: float  # of the corners, upwards
    tuck: float
    brow: float

    @classmethod
    def of(cls, mesh: Mesh, mouth: MouthShape, brow: float = 0.0) -> Bend:
        gap = (mouth.open**4 + (TEETH_GAP * mouth.teeth) ** 4 + (TONGUE_GAP * mouth.tongue) ** 4) ** 0.25
        return cls(
            mesh,
            gap=gap * (1 - mouth.press),
            spread=0.24 * mouth.wide - 0.36 * mouth.round + 0.05 * mouth.press,
            swell=0.2 * mouth.round - 0.12 * mouth.wide - 0.55 * mouth.press,
            lift=0.22 * mouth.wide,
            tuck=mouth.tuck,
            brow=brow,
        )

    def move(self, at: Points, lower: bool) -> Points:
        """Where skin that rests at `at` (..., 2) goes: displacement (..., 2), float32."""
        x, y = at[..., 0], at[..., 1]
        v = y - self.mesh.seam_at(x)
        side = np.abs(x)
        dx = self._sideways(x, side, v) * ramp(y, NOSE_BASE - 0.4, 3.0)
        dy = self._together(y, side, v)
        dy += self._lower(side, v) if lower else self._upper(side, v)
        return np.stack([dx, dy], axis=-1).astype(np.float32)

    def rest_of(self, at: Points, lower: bool) -> Points:
        """Which skin is seen at `at` (..., 2): the inverse of `move`."""
        rest = at
        for _ in range(INVERSIONS):
            rest = at - self.move(rest, lower)
        return rest

    def parted(self, side: Plane) -> Plane:
        """How far the lips part at |x|, 0..1: one at the middle, none at the corners and beyond."""
        return floats(np.maximum(1 - (side / self.mesh.corner) ** 2, 0))

    def _sideways(self, x: Plane, side: Plane, v: Plane) -> Plane:
        corner = self.mesh.corner
        reach = np.minimum(side, corner) * (1 - ramp(side, corner, corner + 4))
        return (self.spread * np.sign(x) * reach * bell(v, 0, 2.0)).astype(np.float32)

    def _together(self, y: Plane, side: Plane, v: Plane) -> Plane:
        """What both fields share: cheeks and corners that follow the jaw, lips that swell, brows."""
        follows = ramp(y, NOSE_BASE - 0.4, 4.2) * (1 - ramp(side, 3.5, 7.6))
        near = ramp(y, NOSE_BASE, 3.2) * bell(v, 0, 1.7) * (1 - ramp(side, self.mesh.corner, self.mesh.corner + 3))
        corner = np.minimum(side / self.mesh.corner, 1.3) ** 2
        shared = CORNER_SHARE * self.gap * follows + (self.swell * v - self.lift * corner) * near
        if self.brow:
            shared = shared - 0.45 * self.brow * bell(y, -4.8, 1.3) * (1 - ramp(side, 4.5, 7.0))
        return floats(shared)

    def _lower(self, side: Plane, v: Plane) -> Plane:
        chin = ramp(v, 0, LIP_REACH)
        parted = self.parted(side)
        jaw = (CHIN_SHARE - CORNER_SHARE) * self.gap - 0.22 * self.tuck
        moved = chin * jaw * (1 - ramp(side, 4.2, 7.4))
        moved += (LOWER_SHARE - CORNER_SHARE) * self.gap * parted * (1 - chin)
        moved -= 0.42 * self.tuck * parted**0.5 * (1 - chin)
        return moved.astype(np.float32)

    def _upper(self, side: Plane, v: Plane) -> Plane:
        raised = (UPPER_SHARE + CORNER_SHARE) * self.gap + 0.16 * self.tuck
        return (-raised * self.parted(side) * ramp(v, -LIP_REACH, 0)).astype(np.float32)


def bend_points(bend: Bend, points: Points, is_lower: npt.NDArray[np.bool_]) -> Points:
    """Displaced points (n, 2); those of the lower field are told by `is_lower` (n,)."""
    moved = np.where(is_lower[:, None], bend.move(points, lower=True), bend.move(points, lower=False))
    return (points + moved).astype(np.float32)
