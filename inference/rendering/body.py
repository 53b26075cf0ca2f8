"""Shoulders and clothes, painted once at the size that the frame needs."""

from __future__ import annotations

import cv2
import numpy as np

from inference.rendering.appearance import Appearance
from inference.rendering.geometry import LEFT, TOP, Mesh, Points, as_float32, smooth_line
from inference.rendering.texture import SUBPIXEL_BITS, TextureMap, light_colour, paint_neck

SHOULDERS = [
    (0, 13.9),
    (2.8, 13.6),
    (4.9, 12.6),
    (6.2, 12.9),
    (9.5, 14.2),
    (14, 15.8),
    (18.6, 18.2),
    (21, 24),
    (22, 60),
]
NECKLINE = [(0, 15.4), (2.6, 14.7), (4.1, 13.3), (4.8, 11.9)]  # edge between skin and clothes, x > 0
COLLAR = [(4.9, 11.4), (5.9, 12.8), (4.2, 16.6), (0.6, 15.8), (2.6, 14.8), (4.2, 13.4)]


def paint_body(
    mesh: Mesh, appearance: Appearance, size: tuple[int, int], origin: tuple[float, float], scale: float
) -> TextureMap:
    """Paint neck, shoulders and clothes: (rows, columns, 4), a texture map (see texture.py) in pixels of the frame.

    size: columns and rows. origin: pixel of the plane's origin. scale: pixels per unit.
    """
    body = place_neck(paint_neck(mesh, appearance, scale), size, origin, scale).astype(np.float32) / 255
    x = (np.arange(size[0], dtype=np.float32) - origin[0])[None, :] / scale
    y = (np.arange(size[1], dtype=np.float32) - origin[1])[:, None] / scale

    def area(right_half: list[tuple[float, float]], mirrored: bool = True, soft: float = 0.06) -> Points:
        return fill_outline(right_half, size, origin, scale, mirrored, soft)

    cloth = area([*SHOULDERS, (0, 60)])
    skin = area([(0, 0), *reversed(NECKLINE), (0, 15.4)])
    cloth = cloth * (1 - skin)
    colour = as_float32(appearance.clothes) / 255 * light_colour(appearance)
    lx = appearance.light[0]
    tone = (appearance.ambient + 0.5 * appearance.light_strength) * (
        1 + 0.02 * lx * x - 0.0012 * x**2 - 0.012 * (y - 14)
    )
    folds = np.random.default_rng([appearance.seed, 3]).standard_normal((8, 12), np.float32)
    tone = tone * (1 + 0.05 * cv2.resize(folds, size, interpolation=cv2.INTER_CUBIC))
    hem = cloth * (1 - cv2.GaussianBlur(cloth, (0, 0), max(0.5 * scale, 0.5)))
    tone = np.clip(tone - 0.35 * hem, 0.15, 1.2)
    blend_over(body, colour * tone[..., None], cloth)
    if appearance.collar:
        for flip in (1, -1):
            half = area([(flip * a, b) for a, b in COLLAR], mirrored=False)
            shadow = cv2.GaussianBlur(half, (0, 0), max(0.35 * scale, 0.5)) * 0.4 * body[..., 3]
            blend_over(body, body[..., :3] * 0.3, shadow * (1 - half))
            blend_over(body, np.clip(colour * 1.14 * tone[..., None], 0, 1), half)
    return np.round(np.clip(body, 0, 1) * 255).astype(np.uint8)


def blend_over(body: Points, colour: Points, mask: Points) -> None:
    """Blend a colour over the texture map in place. `colour` is not premultiplied by `mask`."""
    body[..., :3] += (colour - body[..., :3]) * mask[..., None]
    body[..., 3] = np.maximum(body[..., 3], mask)


def fill_outline(
    outline: list[tuple[float, float]],
    size: tuple[int, int],
    origin: tuple[float, float],
    scale: float,
    mirrored: bool,
    soft: float,
) -> Points:
    points = smooth_line(as_float32(outline), 120)
    if mirrored:
        points = np.vstack([points, points[::-1] * as_float32([-1, 1])])
    mask = np.zeros((size[1], size[0]), np.uint8)
    corners = np.round((points * scale + as_float32(origin)) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(soft * scale, 0.4)).astype(np.float32)


def place_neck(neck: TextureMap, size: tuple[int, int], origin: tuple[float, float], scale: float) -> TextureMap:
    corner = (origin[0] + LEFT * scale + 0.5, origin[1] + TOP * scale + 0.5)
    shift = as_float32([[1, 0, corner[0]], [0, 1, corner[1]]])
    return cv2.warpAffine(neck, shift, size).astype(np.uint8, copy=False)
