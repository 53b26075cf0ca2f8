"""From decoded frames to upright BGR with square pixels, all of one size."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from inference.media.frame_colour import ColourConverter
from inference.media.frames import Frame
from inference.media.media_warnings import RESIZED, TRANSPARENT
from inference.media.orientation import orientation_of

MAX_PIXEL_ASPECT = 4
BACKDROP = 255  # transparent parts are laid over white


class FrameConverter:
    """Converts the frames of one stream, to the size of its first one. `warnings`: what it had to change."""

    def __init__(self, pixel_aspect: Fraction, *, is_still: bool) -> None:
        self.warnings: dict[str, None] = {}  # in order, each once
        self._pixel_aspect = pixel_aspect
        self._colours = ColourConverter(self.warnings, is_still=is_still)
        self._size: tuple[int, int] | None = None  # width and height of the first frame, upright

    def convert(self, frame: av.VideoFrame) -> Frame:
        """Return (H, W, 3) uint8 BGR of sRGB in square pixels, upright as the frame's metadata says.

        Frames of another size than the first are fitted into it, with black bars. Transparent parts are white.
        """
        orientation = orientation_of(frame)
        width, height = orientation.size_of(max(round(frame.width * self._pixel_aspect), 1), frame.height)
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            self.warnings[RESIZED] = None
            width, height = fit(width, height, *self._size)
        stored_width, stored_height = orientation.size_of(width, height)
        pixels = self._colours.to_bgr(frame, stored_width, stored_height)
        if has_alpha(frame):
            pixels, is_transparent = flatten(pixels, frame)
            if is_transparent:
                self.warnings[TRANSPARENT] = None
        return letterbox(orientation.apply(pixels), *self._size)

    def to_bgr(self, frame: av.VideoFrame) -> Frame:
        """Return (H, W, 3) uint8 BGR of sRGB, as the frame is stored."""
        return self._colours.to_bgr(frame, frame.width, frame.height)


def pixel_aspect_of(stream: av.VideoStream) -> Fraction:
    """Return a pixel's width over its height: 1 unless the video is anamorphic (DV, DVD, HDV) or the value absurd."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Return whether a frame may have transparent parts."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def flatten(pixels: Frame, frame: av.VideoFrame) -> tuple[Frame, bool]:
    """Return BGR pixels, (H, W, 3) uint8, over white, and whether any part of their frame is transparent."""
    height, width = pixels.shape[:2]
    # By one thread: each frame would start others, whose stacks count against the memory of the sandbox.
    alpha = frame.reformat(format="bgra", width=width, height=height, threads=1).to_ndarray()[..., 3:]
    flat = lay_over_white(pixels, alpha[..., 0].astype(np.uint8, copy=False))
    return flat, flat is not pixels


def lay_over_white(pixels: Frame, alpha: npt.NDArray[np.uint8]) -> Frame:
    """Return pixels over white; the same array if they are opaque. alpha: (H, W) uint8."""
    if alpha.min(initial=255) == 255:
        return pixels
    flat = np.empty_like(pixels)
    for row, source, weights in zip(flat, pixels, alpha, strict=True):  # by rows: at once, 8K would take 400 MB
        weight = weights[:, None].astype(np.uint16)
        row[:] = (source * weight + BACKDROP * (255 - weight) + 127) // 255
    return flat


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
