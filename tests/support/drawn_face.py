"""A drawn face of any position and size that the detector and the mesh accept, for tests of face positions."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

SKIN, LIP, BACKGROUND = (150, 175, 215), (95, 95, 180), (150, 130, 110)  # BGR
SUB_PIXEL = 4  # oversampling: drawn this much larger, then averaged down


def draw_face(
    width: int = 360,
    height: int = 288,
    centre: tuple[float, float] | None = None,
    face_height: float | None = None,
    mouth_open: float = 0.3,
    frame: Frame | None = None,
) -> Frame:
    """Draw one frame (H, W, 3) uint8 BGR, over `frame` if given. mouth_open: 0 to 1."""
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8) if frame is None else frame.copy()
    big = cv2.resize(canvas, None, fx=SUB_PIXEL, fy=SUB_PIXEL, interpolation=cv2.INTER_NEAREST)
    middle = centre or (width / 2, height / 2)
    unit = (face_height or height * 0.6) / 2 * SUB_PIXEL

    def at(x: float, y: float) -> tuple[int, int]:
        return round(middle[0] * SUB_PIXEL + x * unit), round(middle[1] * SUB_PIXEL + y * unit)

    def ellipse(x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int], turn: float = 0) -> None:
        cv2.ellipse(big, at(x, y), (round(rx * unit), round(ry * unit)), turn, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(0, -0.15, 0.86, 1.05, (35, 45, 60))  # hair
    ellipse(0, 1.25, 0.42, 0.6, shade(0.72))  # neck
    ellipse(0, 0, 0.76, 1.0, SKIN)
    ellipse(0, -0.42, 0.6, 0.4, shade(1.06))  # forehead
    for side in (-1, 1):
        ellipse(side * 0.42, 0.24, 0.2, 0.18, shade(1.04))  # cheek
        ellipse(side * 0.32, -0.2, 0.2, 0.12, shade(0.82))  # socket
        ellipse(side * 0.32, -0.19, 0.14, 0.065, (240, 240, 240))
        ellipse(side * 0.32, -0.19, 0.062, 0.065, (60, 45, 35))
        ellipse(side * 0.33, -0.38, 0.19, 0.035, (40, 50, 65), turn=side * 6)  # brow
        ellipse(side * 0.09, 0.22, 0.045, 0.03, shade(0.55))  # nostril
    ellipse(0.0, 0.02, 0.075, 0.2, shade(1.1))  # bridge of the nose
    ellipse(0.0, 0.2, 0.12, 0.07, shade(0.9))
    draw_mouth(ellipse, mouth_open)
    small = cv2.resize(big, (canvas.shape[1], canvas.shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.8).astype(np.uint8)


def draw_mouth(ellipse, mouth_open: float) -> None:
    gap = 0.13 * mouth_open
    ellipse(0, 0.53 + gap / 2, 0.27, 0.075 + gap, LIP)
    ellipse(0, 0.53 + gap / 2, 0.2, 0.012 + gap, (30, 25, 60))


def shade(factor: float) -> tuple[int, int, int]:
    blue, green, red = (min(round(c * factor), 255) for c in SKIN)
    return blue, green, red
