"""The room behind a person: an out-of-focus background, painted once."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from inference.rendering.appearance import Appearance
from inference.rendering.geometry import as_float32
from inference.rendering.texture import light_colour

FloatImage = npt.NDArray[np.floating]  # (H, W, 3) BGR, 0..1


def paint_background(appearance: Appearance, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Paint the room of an appearance without a person: (H, W, 3) uint8 BGR."""
    rng = np.random.default_rng([appearance.seed, 4])
    room = wall(appearance, width, height)
    if appearance.background == "shelf":
        draw_shelf(room, appearance, rng)
    elif appearance.background == "window":
        draw_window(room, rng)
    elif appearance.background == "lamps":
        draw_lamps(room, rng)
    room *= falloff(appearance, width, height)[..., None] * light_colour(appearance)
    return np.round(np.clip(room, 0, 1) * 255).astype(np.uint8)


def wall(appearance: Appearance, width: int, height: int) -> FloatImage:
    near, far = as_float32(appearance.wall) / 255, as_float32(appearance.wall_far) / 255
    if appearance.background == "plain":
        far = near
    elif appearance.background != "gradient":
        far = near * 0.75
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.repeat((near + (far - near) * down).astype(np.float32), width, axis=1)


def falloff(appearance: Appearance, width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the light on the wall: brightest on the side of the light, darker towards the corners. (H, W) factors."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    lit = 1.04 + 0.16 * appearance.light[0] * x - 0.08 * y - 0.14 * (x**2 + y**2)
    return as_float32(lit)


def blur_in_place(room: FloatImage, share: float) -> None:
    """Blur an image in place; sigma is a share of its height."""
    cv2.GaussianBlur(room, (0, 0), max(share * room.shape[0], 0.5), dst=room, borderType=cv2.BORDER_REFLECT)


def draw_rectangle(
    room: FloatImage, corners: tuple[float, float, float, float], colour: npt.NDArray[np.floating]
) -> None:
    left, top, right, bottom = (round(c) for c in corners)
    cv2.rectangle(room, (left, top), (right, bottom), tuple(float(c) for c in colour), -1)


def draw_shelf(room: FloatImage, appearance: Appearance, rng: np.random.Generator) -> None:
    height, width = room.shape[:2]
    board = as_float32(appearance.wall_far) / 255 * 0.5
    step = height * float(rng.uniform(0.24, 0.32))
    for shelf in np.arange(-0.3 * step, height, step):
        draw_rectangle(room, (0, shelf, width, shelf + step), as_float32(appearance.wall) / 255 * 0.5)
        left = 0.0
        while left < width:
            thick = height * float(rng.uniform(0.02, 0.06))
            tall = step * float(rng.uniform(0.55, 0.85))
            grey = float(rng.uniform(0.22, 0.5))
            colour = (grey + rng.uniform(-0.1, 0.12, 3)).astype(np.float32)
            if rng.random() < 0.88:
                draw_rectangle(room, (left, shelf + step - tall, left + thick - 1, shelf + step), colour)
            left += thick
        draw_rectangle(room, (0, shelf + step - 0.03 * height, width, shelf + step), board)
    blur_in_place(room, 0.024)


def draw_window(room: FloatImage, rng: np.random.Generator) -> None:
    height, width = room.shape[:2]
    left = width * float(rng.choice([-0.08, 0.66]))
    right = left + 0.42 * width
    top, bottom = 0.08 * height, 0.62 * height
    draw_rectangle(room, (left, top, right, bottom), as_float32([0.94, 0.9, 0.84]))
    draw_rectangle(room, (left, 0.42 * height, right, bottom), as_float32([0.62, 0.72, 0.66]))
    frame = as_float32([0.5, 0.52, 0.54])
    for x in (left, (left + right) / 2, right):
        draw_rectangle(room, (x - 0.012 * height, top, x + 0.012 * height, bottom), frame)
    for y in (top, (top + bottom) / 2, bottom):
        draw_rectangle(room, (left, y - 0.012 * height, right, y + 0.012 * height), frame)
    blur_in_place(room, 0.02)


def draw_lamps(room: FloatImage, rng: np.random.Generator) -> None:
    height, width = room.shape[:2]
    room *= 0.62
    for _ in range(12):
        disc = np.zeros_like(room)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = rng.uniform([0.12, 0.25, 0.4], [0.4, 0.6, 0.75])
        radius = round(height * float(rng.uniform(0.03, 0.09)))
        cv2.circle(disc, centre, radius, tuple(float(c) for c in colour), -1, cv2.LINE_AA)
        room += disc * float(rng.uniform(0.2, 0.6))
    blur_in_place(room, 0.01)
