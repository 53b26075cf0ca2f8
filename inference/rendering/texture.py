"""A person's head, neck and hair, painted once, seen from the front with the mouth closed.

Texture maps are (rows, columns, 4) uint8: blue, green and red, premultiplied by the fourth channel, which is the
coverage (0..255). They are aligned with the plane of geometry.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from inference.rendering import geometry
from inference.rendering.appearance import Appearance, Colour
from inference.rendering.geometry import (
    DEPTH_STEPS,
    Mesh,
    Plane,
    Points,
    as_float32,
    gaussian,
    plane_axes,
    smooth_line,
    smoothstep,
    to_pixels,
)

TextureMap = npt.NDArray[np.uint8]
ColourPlane = npt.NDArray[np.floating]  # (rows, columns, 3) BGR, 0..1

MOTTLE_SIGMA = 0.018  # standard deviation of the mottled skin
SUBPIXEL_BITS = 4  # fractional bits of polygon coordinates


class Canvas:
    """A layer of colour over the plane, with its coverage."""

    def __init__(self, rng: np.random.Generator, steps: float) -> None:
        self.steps = steps  # pixels per unit
        self.x, self.y = plane_axes(steps)
        self.shape = (self.y.shape[0], self.x.shape[1])
        self.paint: ColourPlane = np.zeros((*self.shape, 3), np.float32)
        self.cover: Plane = np.zeros(self.shape, np.float32)
        self._rng = rng

    def blend(self, colour: Colour | ColourPlane, mask: Plane) -> None:
        """Blend a colour over the layer; `mask` is 0..1."""
        over = np.asarray(colour, np.float32) / 255 if isinstance(colour, tuple) else colour
        self.paint += (over - self.paint) * mask[..., None]
        self.cover = np.maximum(self.cover, mask)

    def tint(self, factor: npt.ArrayLike, mask: Plane) -> None:
        """Multiply the colours by a factor, fully where `mask` is 1."""
        self.paint *= 1 + (np.asarray(factor, np.float32) - 1) * mask[..., None]

    def spot(self, x: float, y: float, rx: float, ry: float) -> Plane:
        """Return a soft round mask, 1 at its centre."""
        return np.exp(-(((self.x - x) / rx) ** 2) - ((self.y - y) / ry) ** 2).astype(np.float32)

    def area(self, outline: Points, soft: float = 0.04) -> Plane:
        """Return a mask that is 1 inside a polygon (n, 2) in units; its edge is blurred over `soft` units."""
        mask = np.zeros(self.shape, np.uint8)
        corners = np.round(to_pixels(outline, self.steps) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return self.soften(mask.astype(np.float32) / 255, soft)

    def line(self, points: Points, thick: float, soft: float = 0.03) -> Plane:
        mask = np.zeros(self.shape, np.uint8)
        corners = np.round(to_pixels(points, self.steps) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(mask, [corners], False, 255, max(1, round(thick * self.steps)), cv2.LINE_AA, SUBPIXEL_BITS)
        return self.soften(mask.astype(np.float32) / 255, soft)

    def grain(self, size: float) -> Plane:
        """Return noise of mean 0 and standard deviation 1 with grains of `size` units."""
        rows, columns = (max(2, round(n / self.steps / size)) for n in self.shape)
        coarse = self._rng.standard_normal((rows, columns), np.float32)
        return cv2.resize(coarse, self.shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)

    def strands(self, root: tuple[float, float], fine: float) -> Plane:
        """Return noise stretched along lines from `root`, like hair. About -1..1."""
        dx, dy = self.x - root[0], self.y - root[1]
        angle, far = np.arctan2(dx, dy), np.hypot(dx, dy)
        noise = self._rng.standard_normal((24, 512), np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 0.7, borderType=cv2.BORDER_REFLECT).astype(np.float32)
        at_x = (angle / (2 * np.pi) + 0.5) * 511 * fine % 511
        at_y = np.clip(far * 1.1, 0, 23)
        drawn = cv2.remap(noise, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR)
        return (drawn / max(float(np.abs(drawn).max()), 1e-6)).astype(np.float32)

    def soften(self, mask: Plane, width: float) -> Plane:
        return cv2.GaussianBlur(mask, (0, 0), max(width * self.steps, 0.4)).astype(np.float32)

    def to_texture(self) -> TextureMap:
        colours = np.clip(self.paint, 0, 1) * self.cover[..., None]
        return np.round(np.dstack([colours, self.cover]) * 255).astype(np.uint8)


def light_colour(appearance: Appearance) -> npt.NDArray[np.float32]:
    """Return blue, green and red factors of the light's colour."""
    return as_float32([1 - 0.07 * appearance.warmth, 1.0, 1 + 0.05 * appearance.warmth])


def shade_plane(depth: Plane, appearance: Appearance, shape: tuple[int, int]) -> tuple[Plane, Plane]:
    """Return the Lambert shading of the surface, about 0.5..1.15, and its highlights, 0..1; each of `shape`."""
    gain = DEPTH_STEPS / 8  # normalises the 3x3 Sobel kernel to slope per unit
    slope_x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3, scale=gain)
    slope_y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3, scale=gain)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lx, ly, lz = appearance.light
    facing = (-slope_x * lx - slope_y * ly + lz) / length
    half = as_float32([lx, ly, lz + 1]) / np.linalg.norm([lx, ly, lz + 1])
    glint = np.maximum((-slope_x * half[0] - slope_y * half[1] + half[2]) / length, 0) ** 24
    shade = appearance.ambient + appearance.light_strength * np.maximum(facing, 0)
    size = (shape[1], shape[0])
    shade, glint = (cv2.resize(p.astype(np.float32), size, interpolation=cv2.INTER_CUBIC) for p in (shade, glint))
    return shade.astype(np.float32), glint.astype(np.float32)


def curve(mesh: Mesh, indices: Sequence[int], n: int = 40) -> Points:
    return smooth_line(mesh.vertices[list(indices), :2], n)


def paint_head(mesh: Mesh, depth: Plane, appearance: Appearance, steps: float) -> TextureMap:
    """Paint the head from hair to chin, with ears, without eyes, the mouth closed."""
    canvas = Canvas(np.random.default_rng([appearance.seed, 1]), steps)
    draw_ears(canvas, mesh, appearance)
    draw_skin(canvas, mesh, appearance)
    draw_features(canvas, mesh)
    draw_lips(canvas, mesh, appearance)
    shade, glint = shade_plane(depth, appearance, canvas.shape)
    canvas.paint *= shade[..., None] * light_colour(appearance)
    oily = glint * (1 - smoothstep(canvas.y, 3.2, 6.0)) * 0.5 + glint * 0.3
    canvas.paint += (0.10 * oily * canvas.cover)[..., None]
    draw_brows(canvas, mesh, appearance)
    draw_hair(canvas, mesh, appearance)
    return canvas.to_texture()


def draw_ears(canvas: Canvas, mesh: Mesh, appearance: Appearance) -> None:
    edge = float(mesh.vertices[454, 0])
    for sign in (-1, 1):
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ear = np.stack([sign * (edge + 0.25) + 0.95 * np.cos(angle), -0.4 + 2.4 * np.sin(angle)], axis=1)
        ear[:, 0] += sign * 0.35 * (ear[:, 1] < -0.4) * np.abs(np.sin(angle))
        canvas.blend(appearance.skin, canvas.area(smooth_line(ear, 80, closed=True)))
        canvas.tint((0.86, 0.86, 0.96), canvas.area(smooth_line(ear, 80, closed=True)))
        canvas.tint(0.72, canvas.spot(sign * (edge + 0.5), -0.5, 0.38, 1.3))


def draw_skin(canvas: Canvas, mesh: Mesh, appearance: Appearance) -> None:
    oval = smooth_line(mesh.vertices[geometry.OVAL, :2], 240, closed=True)
    width = float(mesh.vertices[454, 0])
    angle = np.linspace(0, 2 * np.pi, 90)
    skull = np.stack([width * 1.02 * np.cos(angle), -3.8 + 8.0 * np.sin(angle)], axis=1)
    skull[:, 1] = np.minimum(skull[:, 1], 0)
    canvas.blend(appearance.skin, np.maximum(canvas.area(oval), canvas.area(skull.astype(np.float32))))
    for sign in (-1, 1):
        canvas.tint((0.93, 0.93, 1.01), canvas.spot(sign * 4.4, 2.2, 2.2, 1.9))  # cheeks
        canvas.tint((0.9, 0.9, 0.94), canvas.spot(sign * 3.0, -1.3, 1.7, 0.6))  # under the eyes
    canvas.tint((0.93, 0.93, 1.0), canvas.spot(0, 1.2, 1.3, 1.2))  # nose
    canvas.tint((0.97, 0.96, 1.0), canvas.spot(0, 8.2, 2.4, 1.4))  # chin
    if appearance.beard:
        shaven = smoothstep(canvas.y, 1.8, 4.2) * (1 - 0.6 * canvas.spot(0, 3.9, 3.0, 1.2))
        canvas.tint(np.asarray(appearance.hair) / 255 * 0.5 + 0.42, 0.4 * appearance.beard * shaven)
    mottle = 0.6 * canvas.grain(0.12) + 0.5 * canvas.grain(0.6) + 0.5 * canvas.grain(2.0)
    canvas.tint(0.0, -MOTTLE_SIGMA * mottle)


def draw_features(canvas: Canvas, mesh: Mesh) -> None:
    """Draw details too fine for the mesh to shade: eye sockets, lids, nostrils, folds beside nose and mouth."""
    wing = float(mesh.vertices[327, 0])
    nose_base = float(mesh.vertices[2, 1])
    for sign, upper, lower in zip((-1, 1), geometry.UPPER_LIDS, geometry.LOWER_LIDS, strict=True):
        middle = mesh.vertices[upper, :2].mean(axis=0)
        canvas.tint((0.88, 0.88, 0.92), canvas.spot(sign * 1.7, -2.9, 0.9, 1.1))  # inner socket
        canvas.tint((0.87, 0.87, 0.91), canvas.spot(float(middle[0]), float(middle[1]) - 0.55, 1.8, 0.55))
        crease = curve(mesh, upper) + as_float32([0, -0.42])
        canvas.tint((0.66, 0.66, 0.7), 0.8 * canvas.line(crease, 0.12, 0.07))
        canvas.tint((0.78, 0.78, 0.84), 0.7 * canvas.line(curve(mesh, lower) + as_float32([0, 0.38]), 0.1, 0.1))
        canvas.tint((0.55, 0.52, 0.6), canvas.spot(sign * wing * 0.62, nose_base - 0.12, 0.42, 0.2))  # nostril
        canvas.tint((0.45, 0.42, 0.5), canvas.spot(sign * wing * 0.6, nose_base - 0.08, 0.26, 0.12))
        wing_line = as_float32([[wing * 0.93, -0.75], [wing * 1.18, -0.2], [wing * 1.02, 0.1]]) * as_float32([sign, 1])
        wing_line[:, 1] += nose_base - 0.1
        canvas.tint((0.72, 0.7, 0.76), 0.8 * canvas.line(smooth_line(wing_line, 20), 0.1, 0.1))
        canvas.tint((0.93, 0.93, 0.95), canvas.spot(sign * 1.0, -0.2, 0.5, 1.6))  # side of the nose
        fold = as_float32([[1.9, 1.6], [2.6, 2.6], [3.1, 3.9]]) * as_float32([sign, 1])
        canvas.tint((0.9, 0.89, 0.92), 0.7 * canvas.line(smooth_line(fold, 20), 0.14, 0.16))
    canvas.tint(1.05, canvas.spot(0, -0.6, 0.4, 1.9))  # ridge of the nose
    canvas.tint((0.8, 0.8, 0.85), canvas.spot(0, nose_base + 0.12, 0.9, 0.22))  # under the nose
    canvas.tint((0.91, 0.91, 0.94), canvas.spot(0, nose_base + 0.65, 0.28, 0.5))  # philtrum


def draw_lips(canvas: Canvas, mesh: Mesh, appearance: Appearance) -> None:
    seam = mesh.seam
    upper = np.vstack([curve(mesh, geometry.OUTER_UPPER_LIP), seam[::-1]])
    lower = np.vstack([curve(mesh, geometry.OUTER_LOWER_LIP), seam[::-1]])
    skin = as_float32(appearance.skin) / 255
    lip = skin * as_float32(appearance.lip_tint)
    lip_paint = np.broadcast_to(lip, canvas.paint.shape).astype(np.float32)
    low = float(mesh.vertices[17, 1])
    canvas.tint((0.8, 0.8, 0.83), canvas.spot(0, low + 0.42, 1.5, 0.32))  # shadow under the lower lip
    canvas.blend(lip_paint, 0.95 * canvas.area(lower, 0.07))
    canvas.blend(lip_paint * as_float32(0.9), 0.95 * canvas.area(upper, 0.06))
    middle = (float(seam[30, 1]) + low) / 2
    canvas.paint += (0.055 * canvas.spot(0, middle, 1.2, 0.26))[..., None]
    canvas.tint(0.0, -0.02 * canvas.grain(0.1) * np.maximum(canvas.area(lower), canvas.area(upper)))
    canvas.tint((0.5, 0.46, 0.55), 0.8 * canvas.line(seam[3:-3], 0.08, 0.05))
    for sign in (-1, 1):
        canvas.tint((0.7, 0.68, 0.74), canvas.spot(sign * mesh.corner, float(seam[0, 1]), 0.3, 0.22))


def draw_brows(canvas: Canvas, mesh: Mesh, appearance: Appearance) -> None:
    colour = as_float32(appearance.hair) / 255 * 0.75 + as_float32(appearance.skin) / 255 * 0.06
    for upper, lower in zip(geometry.UPPER_BROWS, geometry.LOWER_BROWS, strict=True):
        above, below = curve(mesh, upper), curve(mesh, lower)
        middle = above * 0.5 + below * 0.5
        half = (below - above) / 2 * appearance.brow_weight * 0.85
        outline = np.vstack([middle - half, (middle + half)[::-1]])
        mask = canvas.area(outline.astype(np.float32), 0.13)
        hairy = 0.85 + 0.22 * canvas.strands((float(middle[:, 0].mean()), 2.0), 6.0)
        canvas.blend(np.broadcast_to(colour, canvas.paint.shape).astype(np.float32), np.clip(mask * hairy, 0, 1) * 0.88)


# Outlines of the hair for one side (x > 0), from the middle of the top down to its end, and the edge of the
# face from there back up to the middle; (x, y) with x in half widths of the face.
HAIR_OUTLINES: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {
    "buzz": (
        [(0, -12.2), (0.5, -11.7), (0.86, -9.6), (1.03, -6.6), (1.05, -4.0), (1.03, -2.6)],
        [(0.96, -3.6), (0.92, -5.4), (0.8, -6.9), (0.45, -8.0), (0, -8.3)],
    ),
    "short": (
        [(0, -13.4), (0.55, -12.8), (0.95, -10.4), (1.13, -6.8), (1.12, -3.8), (1.04, -1.4)],
        [(0.98, -2.2), (0.94, -4.4), (0.84, -6.4), (0.6, -7.8), (0.3, -7.7), (0, -7.9)],
    ),
    "parted": (
        [(0, -13.6), (0.55, -13.0), (0.98, -10.4), (1.16, -6.8), (1.14, -3.6), (1.05, -0.6)],
        [(0.98, -1.6), (0.95, -4.2), (0.86, -5.9), (0.5, -7.4), (0, -8.1)],
    ),
    "curly": (
        [(0, -14.4), (0.6, -13.8), (1.1, -11.2), (1.32, -7.2), (1.28, -3.6), (1.1, -0.8)],
        [(0.98, -1.8), (0.93, -4.6), (0.84, -6.6), (0.45, -7.6), (0, -7.7)],
    ),
    "long": (
        [(0, -13.0), (0.55, -12.4), (0.98, -9.8), (1.17, -6.0), (1.2, -1.0), (1.19, 3.0), (1.12, 5.0)],
        [(1.0, 3.6), (0.98, -0.5), (0.93, -4.2), (0.78, -6.4), (0.4, -7.9), (0, -8.6)],
    ),
    "bob": (
        [(0, -13.2), (0.55, -12.7), (1.0, -10.2), (1.22, -6.0), (1.27, -1.0), (1.24, 3.4), (1.12, 5.0)],
        [(0.98, 4.0), (0.97, 0.0), (0.95, -3.2), (0.84, -5.4), (0.45, -6.3), (0, -6.5)],
    ),
}


def hair_outline(mesh: Mesh, style: str, hairline: float) -> Points:
    outer, inner = HAIR_OUTLINES[style]
    inner = [(x, y - hairline * float(gaussian(as_float32(y), -8.0, 3.0))) for x, y in inner]
    width = float(mesh.vertices[454, 0])
    sides = []
    for sign in (-1, 1):
        half = [smooth_line(as_float32(part) * as_float32([sign * width, 1]), 40) for part in (outer, inner)]
        sides.append(np.vstack(half))
    return np.vstack([sides[1], sides[0][::-1]])


def hair_paint(canvas: Canvas, appearance: Appearance, root: tuple[float, float]) -> ColourPlane:
    """Return hair colours: strands from `root`, and a band of light around the head."""
    colour = as_float32(appearance.hair) / 255 * light_colour(appearance)
    strands = canvas.strands(root, 3.0) + 0.6 * canvas.strands(root, 9.0)
    if appearance.hair_style == "curly":
        strands = 1.0 * canvas.grain(0.3) + 0.6 * canvas.grain(0.7)
    lx, ly, _ = appearance.light
    ring = np.hypot((canvas.x - 2.5 * lx) / 8.0, (canvas.y + 3.0) / 9.5)
    sheen = gaussian(ring, 0.74, 0.16) * np.clip(0.75 + 0.5 * lx * canvas.x / 8 + 0.5 * ly * canvas.y / 10, 0, 1.4)
    ball = np.clip(1.1 - 0.55 * smoothstep(ring, 0.6, 1.15), 0.3, 1.2) * (0.75 + 0.35 * appearance.light_strength)
    tone = ball * (1 + 0.26 * strands)
    gloss = 0.03 if appearance.hair_style == "curly" else 0.09
    return as_float32(colour * tone[..., None] + (gloss * sheen * (1 + 0.8 * strands))[..., None])


def draw_hair(canvas: Canvas, mesh: Mesh, appearance: Appearance) -> None:
    part = appearance.part
    outline = hair_outline(mesh, appearance.hair_style, appearance.hairline)
    edge = 0.28 if appearance.hair_style == "buzz" else 0.1
    mask = canvas.area(outline, edge)
    canvas.tint(0.78, 0.8 * canvas.soften(mask, 0.35) * (1 - mask))  # shadow of the hair on the skin
    if appearance.hair_style == "curly":
        ragged = 0.5 * canvas.grain(0.25) + 0.6 * canvas.grain(0.8)
    else:
        ragged = canvas.strands((part, -11.5), 5.0) + 1.3 * canvas.strands((part, -11.5), 1.3)
    ragged = np.clip(ragged, -1, 1)
    sharp, locks = (1.5, 0.2) if appearance.hair_style == "buzz" else (2.6, 0.26)
    near = canvas.soften(mask, 0.3)
    mask = np.clip((near - 0.5 + locks * ragged) * sharp + 0.5, 0, 1) * smoothstep(near, 0.02, 0.2)
    if appearance.hair_style == "buzz":
        mask *= 0.86
    canvas.blend(hair_paint(canvas, appearance, (part, -11.5)), mask.astype(np.float32))


def paint_back_hair(mesh: Mesh, appearance: Appearance, steps: float) -> TextureMap | None:
    """Paint the hair that hangs behind the neck; None if the style has none."""
    ends = {"long": 13.0, "bob": 6.4}.get(appearance.hair_style)
    if ends is None:
        return None
    canvas = Canvas(np.random.default_rng([appearance.seed, 2]), steps)
    width = float(mesh.vertices[454, 0])
    right = as_float32([(0, -12), (0.9, -9.5), (1.2, -3), (1.26, 4), (1.2, ends - 1), (0.9, ends), (0, ends)])
    right *= as_float32([width, 1])
    outline = np.vstack([smooth_line(right, 60), smooth_line(right, 60)[::-1] * as_float32([-1, 1])])
    paint = hair_paint(canvas, appearance, (0.3, -14.0)) * as_float32(0.74)
    canvas.blend(paint, canvas.area(outline, 0.12))
    return canvas.to_texture()


def paint_neck(mesh: Mesh, appearance: Appearance, steps: float) -> TextureMap:
    """Paint the neck down to the collar, with the shadow of the chin. Clothes are blended over it."""
    canvas = Canvas(np.random.default_rng([appearance.seed, 3]), steps)
    width = float(mesh.vertices[454, 0]) / 7.66
    right = as_float32([(0, 3), (4.9, 3), (4.7, 7), (4.6, 10), (4.9, 12.4), (6.5, 14.5), (8, 16.5), (0, 16.5)])
    right *= as_float32([width, 1])
    outline = np.vstack([smooth_line(right, 60), smooth_line(right, 60)[::-1] * as_float32([-1, 1])])
    canvas.blend(appearance.skin, canvas.area(outline))
    lx = appearance.light[0]
    round_off = np.clip(1 - 0.45 * (np.abs(canvas.x - 1.5 * lx) / 5.4) ** 2, 0.4, 1)
    below = 0.44 + 0.52 * smoothstep(canvas.y + 0.07 * canvas.x**2, 8.6, 13.4)  # the chin's shadow
    tone = (appearance.ambient + 0.8 * appearance.light_strength) * round_off * below
    canvas.paint *= tone[..., None] * light_colour(appearance)
    for sign in (-1, 1):
        tendon = as_float32([(sign * 3.6, 8), (sign * 2.2, 11.4), (sign * 0.9, 13.6)])
        canvas.tint(0.9, canvas.line(smooth_line(tendon, 20), 0.3, 0.25))
    canvas.tint(0.82, canvas.spot(0, 13.6, 0.7, 0.6))
    canvas.tint(0.0, -MOTTLE_SIGMA * canvas.grain(0.5))
    return canvas.to_texture()
