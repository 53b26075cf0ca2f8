"""From decoded frames to upright BGR with square pixels, all of one size."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from inference.media.frames import Frame
from inference.media.media_warnings import RESIZED, TRANSPARENT
from inference.media.orientation import orientation_of

MAX_PIXEL_ASPECT = 4
BACKDROP = 255  # transparent parts are laid over white


class FrameConverter:
    """Converts the frames of one stream, to the size of its first one. `warnings` tell what it had to do."""

    def __init__(self, pixel_aspect: Fraction) -> None:
        self.warnings: dict[str, None] = {}  # in order, each once
        self._pixel_aspect = pixel_aspect
        self._size: tuple[int, int] | None = None  # width and height of the first frame, upright

    def convert(self, frame: av.VideoFrame) -> Frame:
        """Return (H, W, 3) uint8 BGR in square pixels, upright as the frame's metadata says.

        Frames of another size than the first are fitted into it, with black bars. Transparent parts are white.
        """
        orientation = orientation_of(frame)
        width, height = orientation.size_of(max(round(frame.width * self._pixel_aspect), 1), frame.height)
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            self.warnings[RESIZED] = None
            width, height = fit(width, height, *self._size)
        stored_width, stored_height = orientation.size_of(width, height)
        if has_alpha(frame):
            pixels, is_transparent = flatten(frame, stored_width, stored_height)
            if is_transparent:
                self.warnings[TRANSPARENT] = None
        else:
            pixels = to_bgr(frame, stored_width, stored_height)
        return letterbox(orientation.apply(pixels), *self._size)


def pixel_aspect_of(stream: av.VideoStream) -> Fraction:
    """Return a pixel's width over its height: 1 unless the video is anamorphic (DV, DVD, HDV) or the value absurd."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def to_bgr(frame: av.VideoFrame, width: int, height: int) -> Frame:
    """Return (height, width, 3) uint8 BGR."""
    return frame.to_ndarray(format="bgr24", width=width, height=height).astype(np.uint8, copy=False)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Return whether a frame may have transparent parts."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def flatten(frame: av.VideoFrame, width: int, height: int) -> tuple[Frame, bool]:
    """Return (height, width, 3) uint8 BGR over white, and whether any part is transparent."""
    pixels = frame.to_ndarray(format="bgra", width=width, height=height)
    alpha = pixels[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(pixels[..., :3]), False
    flat = np.empty((height, width, 3), np.uint8)
    for row in range(height):  # by rows: the products of a frame of 8K would take 400 MB
        weight = alpha[row].astype(np.uint16)
        flat[row] = (pixels[row, :, :3] * weight + BACKDROP * (255 - weight) + 127) // 255
    return flat, True


def fit(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """Return the largest size of this aspect inside another."""
    scale = min(Fraction(max_width, width), Fraction(max_height, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def letterbox(pixels: Frame, width: int, height: int) -> Frame:
    """Centre pixels in a black frame; the same array if they fill it."""
    own_height, own_width = pixels.shape[:2]
    if (own_width, own_height) == (width, height):
        return pixels
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - own_height) // 2, (width - own_width) // 2
    framed[top : top + own_height, left : left + own_width] = pixels
    return framed
