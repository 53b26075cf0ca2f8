"""From decoded frames to upright BGR with square pixels."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np

from inference.media.frames import Frame

MAX_PIXEL_ASPECT = 4


def pixel_aspect_of(stream: av.video.stream.VideoStream) -> Fraction:
    """Return a pixel's width over its height: 1 unless the video is anamorphic (DV, DVD, HDV) or the value absurd."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def to_upright_bgr(frame: av.VideoFrame, pixel_aspect: Fraction) -> Frame:
    """Return (H, W, 3) uint8 BGR in square pixels, rotated by the file's metadata."""
    width = round(frame.width * pixel_aspect)
    quarter_turns = math.floor(frame.rotation / 90 + 0.5) % 4  # counter-clockwise
    pixels = to_bgr(frame, width, frame.height)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def to_bgr(frame: av.VideoFrame, width: int, height: int) -> Frame:
    """Return (height, width, 3) uint8 BGR."""
    return frame.to_ndarray(format="bgr24", width=width, height=height).astype(np.uint8, copy=False)
