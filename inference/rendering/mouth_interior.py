"""Everything visible between the lips and between the eyelids: teeth, tongue, the dark cavity, the eyes.

Every pixel is computed from its position on the plane of the face, so that all of it moves by fractions of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.rendering import geometry
from inference.rendering.appearance import Appearance
from inference.rendering.deformation import LOWER_SHARE, MouthDeformation
from inference.rendering.geometry import Mesh, Plane, Points, as_float32, gaussian, smooth_line, smoothstep
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.texture import ColourPlane, light_colour

CAVITY_COLOUR = as_float32([30, 26, 52]) / 255
TOOTH_COLOUR = as_float32([170, 190, 204]) / 255
TONGUE_COLOUR = as_float32([104, 96, 184]) / 255
SCLERA_COLOUR = as_float32([204, 208, 214]) / 255
TOOTH_EDGES = as_float32([0.0, 0.74, 1.32, 1.86])  # |x| of the boundaries between teeth
IRIS, PUPIL = 0.62, 0.27  # radii, in units


def exposure(appearance: Appearance) -> float:
    return float(np.clip(appearance.ambient + appearance.light_strength * appearance.light[2], 0.7, 1.15))


def blend(below: ColourPlane, above: ColourPlane, cover: Plane) -> ColourPlane:
    return (below + (above - below) * cover[..., None]).astype(np.float32)


@dataclass(frozen=True)
class MouthInterior:
    """The inside of one person's mouth."""

    mesh: Mesh
    appearance: Appearance

    def colours_at(
        self, at: Points, deformation: MouthDeformation, mouth: MouthShape, soft: float
    ) -> tuple[ColourPlane, Plane]:
        """Return colours, (rows, columns, 3) 0..1, and the coverage of the upper teeth at points (rows, columns, 2).

        at: points of the face's plane. soft: width of an edge, half a pixel in units.
        """
        x = at[..., 0] / (1 + 0.3 * deformation.spread)
        y = at[..., 1] - self.mesh.seam_at(np.zeros(1, np.float32))[0]
        deep = smoothstep(np.abs(x), 0.5, self.mesh.corner)
        light = (exposure(self.appearance) * (1 - 0.5 * deep) * gap_light(y, deformation))[..., None] * light_colour(
            self.appearance
        )
        floor = y - LOWER_SHARE * deformation.gap  # below the lower lip's edge: positive
        colours: ColourPlane = np.broadcast_to(CAVITY_COLOUR, (*x.shape, 3)).astype(np.float32) * (0.5 + 0.5 * light)
        upper, upper_teeth = self._upper_teeth(x, y, mouth, soft)
        colours = blend(colours, self._tongue_paint(light, 0.62), self._resting_tongue(x, floor, soft))
        lower = TOOTH_COLOUR * 0.86 * tooth_gaps(x * 1.25) * light
        colours = blend(colours, lower, self._lower_teeth(x, floor, mouth, soft))
        colours = blend(colours, upper * light, upper_teeth)
        colours = blend(colours, self._tongue_paint(light, 0.95), self._tip(x, y, deformation, mouth, soft))
        return colours, upper_teeth

    def _upper_teeth(self, x: Plane, y: Plane, mouth: MouthShape, soft: float) -> tuple[ColourPlane, Plane]:
        edge = 0.02 + 0.22 * mouth.teeth + 0.1 * mouth.tuck - 0.05 * x**2
        shown = min(1.0, 0.35 * mouth.open + mouth.teeth + mouth.tuck)
        cover = smoothstep(edge - y, -soft, soft) * (1 - smoothstep(np.abs(x), 1.5, 2.2)) * shown
        return (TOOTH_COLOUR * tooth_gaps(x)).astype(np.float32), cover.astype(np.float32)

    def _lower_teeth(self, x: Plane, floor: Plane, mouth: MouthShape, soft: float) -> Plane:
        edge = -0.05 - 0.2 * mouth.teeth + 0.06 * x**2
        shown = mouth.teeth * (1 - smoothstep(np.abs(x), 1.2, 1.9))
        return (smoothstep(floor - edge, -soft, soft) * shown).astype(np.float32)

    def _resting_tongue(self, x: Plane, floor: Plane, soft: float) -> Plane:
        top = -0.34 + 0.3 * (x / 1.5) ** 2
        return (smoothstep(floor - top, -soft - 0.08, soft + 0.08) * 0.8).astype(np.float32)

    def _tip(self, x: Plane, y: Plane, deformation: MouthDeformation, mouth: MouthShape, soft: float) -> Plane:
        """Return the coverage of the tip of the tongue, raised from the floor of the mouth to the upper teeth."""
        floor = LOWER_SHARE * deformation.gap
        top = floor + (0.02 - floor) * mouth.tongue + 0.28 * (x / 1.0) ** 2
        cover = smoothstep(y - top, -soft - 0.05, soft + 0.05) * (1 - smoothstep(np.abs(x), 1.15, 1.55))
        return (cover * min(1.0, 1.6 * mouth.tongue)).astype(np.float32)

    @staticmethod
    def _tongue_paint(light: ColourPlane, tone: float) -> ColourPlane:
        return (TONGUE_COLOUR * tone * light).astype(np.float32)


def gap_light(y: Plane, deformation: MouthDeformation) -> Plane:
    """Return the light that reaches the inside of the mouth: the upper lip casts a shadow on the upper part."""
    upper_lip = -0.2 * deformation.gap
    return (0.7 + 0.3 * smoothstep(y, upper_lip, upper_lip + 0.4)).astype(np.float32)


def tooth_gaps(x: Plane) -> ColourPlane:
    """Return factors (rows, columns, 1) that darken the gaps between teeth."""
    dark = np.zeros_like(x)
    for edge in TOOTH_EDGES:
        dark = np.maximum(dark, gaussian(np.abs(x), float(edge), 0.07))
    return (1 - 0.2 * dark)[..., None].astype(np.float32)


@dataclass(frozen=True)
class Eye:
    """One eye of one person. upper, lower: (n, 2), edges of the lids, left to right."""

    upper: Points
    lower: Points
    appearance: Appearance

    @classmethod
    def from_mesh(cls, mesh: Mesh, appearance: Appearance, side: int) -> Eye:
        """Create one eye. side: 0 for the viewer's left, 1 for the right."""
        lids = (geometry.UPPER_LIDS[side], geometry.LOWER_LIDS[side])
        upper, lower = (smooth_line(mesh.vertices[lid, :2], 40) for lid in lids)
        return cls(upper, lower, appearance)

    @property
    def middle(self) -> Points:
        ends = (self.upper[0] + self.upper[-1]) / 2
        return as_float32([ends[0], (self.upper[:, 1].min() + self.lower[:, 1].max()) / 2])

    def lids(self, x: Plane, blink: float) -> tuple[Plane, Plane]:
        """Return the heights y of the edges of the upper and lower lid at x. `blink` lowers the upper one."""
        above = np.interp(x, self.upper[:, 0], self.upper[:, 1])
        below = np.interp(x, self.lower[:, 0], self.lower[:, 1])
        return (above + (below - above) * 0.94 * blink).astype(np.float32), below.astype(np.float32)

    def draw_over(
        self, skin: ColourPlane, at: Points, blink: float, gaze: tuple[float, float], soft: float
    ) -> ColourPlane:
        """Draw the eye over the skin of the closed lid (rows, columns, 3), at points (rows, columns, 2) of the plane.

        gaze: shift of the iris, in units. soft: half a pixel in units.
        """
        x, y = at[..., 0], at[..., 1]
        above, below = self.lids(x, blink)
        between = smoothstep(x, self.upper[0, 0] - soft, self.upper[0, 0] + soft)
        between = between * (1 - smoothstep(x, self.upper[-1, 0] - soft, self.upper[-1, 0] + soft))
        opening = smoothstep(y - above, -soft, soft) * (1 - smoothstep(y - below, -soft, soft)) * between
        colours = blend(skin, self._ball(x, y, above, gaze, soft), opening.astype(np.float32))
        lash = gaussian(y - above, -0.02, 0.1 + 0.5 * soft) * between
        colours = colours * (1 - (0.82 * lash)[..., None] * as_float32([1, 1, 0.94]))
        rim = gaussian(y - below, 0.03, 0.08 + 0.5 * soft) * between
        return (colours * (1 - (0.34 * rim)[..., None] * as_float32([1, 1, 0.8]))).astype(np.float32)

    def _ball(self, x: Plane, y: Plane, above: Plane, gaze: tuple[float, float], soft: float) -> ColourPlane:
        middle = self.middle
        dx, dy = x - middle[0] - gaze[0], y - middle[1] + 0.06 - gaze[1]
        far = np.hypot(dx, dy)
        ball = SCLERA_COLOUR * (1 - 0.25 * smoothstep(np.abs(x - middle[0]), 0.5, 1.4))[..., None]
        ring = as_float32(self.appearance.eyes) / 255
        iris = ring * (0.75 + 0.5 * smoothstep(dy, -0.5, 0.5) - 0.4 * smoothstep(far, 0.42, IRIS))[..., None]
        ball = blend(ball, iris, 1 - smoothstep(far, IRIS - soft - 0.03, IRIS + soft + 0.03))
        ball = blend(ball, np.full_like(ball, 0.04), 1 - smoothstep(far, PUPIL - soft, PUPIL + soft))
        ball = ball * (0.62 + 0.38 * smoothstep(y - above, 0.0, 0.4))[..., None]  # the upper lid's shadow
        glint_x = 0.22 * float(np.sign(self.appearance.light[0]) or 1)
        glint = np.exp(-(((dx - glint_x) / 0.13) ** 2) - ((dy + 0.2) / 0.13) ** 2)
        ball = ball * exposure(self.appearance) * light_colour(self.appearance)
        return as_float32(ball + (0.75 * glint)[..., None])
