"""From YUV to BGR and back, rounded: greys stay neutral, and what is written is what was read, within a level.

swscale truncates on its fast path, which darkens by one level and tints, and takes ten times as long on its exact one.
Colours of 4:2:0 are repeated when read, as by swscale, and averaged when written: the one undoes the other, so that
colours of untouched pixels neither move nor fade.
"""

from __future__ import annotations

from functools import cache

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, ColorTrc

from inference.media.colour import YuvMatrix
from inference.media.frames import Frame

Plane = npt.NDArray[np.uint8]
Coefficients = npt.NDArray[np.float32]
CENTRE = 128  # of U and V
BLACK, LUMA_SPAN, CHROMA_SPAN = 16, 219, 224  # levels of limited range
# OpenCV computes with multiples of 1/1024: with such coefficients, the three offsets of a grey are the same.
STEP = 1 / 1024
BAND_PIXELS = 1 << 17  # converted at a time: it stays in the processor's cache, and takes no memory for 8K


def to_bgr(planes: tuple[Plane, Plane, Plane], matrix: YuvMatrix, *, is_full: bool) -> Frame:
    """Return (H, W, 3) uint8 BGR of planes of 4:2:0: Y (H, W), U and V (H / 2, W / 2), rounded up."""
    luma, *chroma = planes
    height, width = luma.shape
    coefficients = bgr_coefficients(matrix, is_full=is_full)
    frame = np.empty((height, width, 3), np.uint8)
    n_rows = rows_of_band(width)
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        parts = [repeat(part[top // 2 : -(-bottom // 2)])[: bottom - top, :width] for part in chroma]
        cv2.transform(cv2.merge([luma[top:bottom], *parts]), coefficients, dst=frame[top:bottom])
    return frame


def to_yuv420(frame: Frame, *, is_rounded_down: bool = False) -> av.VideoFrame:
    """Return a yuv420p frame of BT.709, limited range, so tagged.

    frame: (H, W, 3) uint8 BGR, H and W even. is_rounded_down: levels stand for those from there to the next.
    """
    height, width = frame.shape[:2]
    n_pixels = height * width
    packed = np.empty(n_pixels * 3 // 2, np.uint8)
    luma = packed[:n_pixels].reshape(height, width)
    chroma = packed[n_pixels:].reshape(2, height // 2, width // 2)
    coefficients = yuv_coefficients(is_rounded_down=is_rounded_down)
    n_rows = rows_of_band(width)
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        yuv = cv2.transform(frame[top:bottom], coefficients)
        small = cv2.resize(yuv, (width // 2, (bottom - top) // 2), interpolation=cv2.INTER_AREA)
        cv2.extractChannel(yuv, 0, dst=luma[top:bottom])
        for i in (0, 1):
            cv2.extractChannel(small, i + 1, dst=chroma[i, top // 2 : bottom // 2])
    image = av.VideoFrame.from_ndarray(packed.reshape(height * 3 // 2, width), format="yuv420p")
    image.colorspace, image.color_range = YuvMatrix.BT709, ColorRange.MPEG
    image.color_trc = ColorTrc.BT709
    return image


def planes_of(frame: av.VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Return Y, U and V of a yuv420p frame, without a copy: the frame must outlive them."""
    luma, of_blue, of_red = (view_plane(plane) for plane in frame.planes)
    return luma, of_blue, of_red


def view_plane(plane: av.video.plane.VideoPlane) -> Plane:
    samples: Plane = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # PyAV's stub lacks __buffer__
    return samples.reshape(plane.height, plane.line_size)[:, : plane.width]


def repeat(plane: Plane) -> Plane:
    """Return the plane with each sample repeated across and down."""
    size = plane.shape[1] * 2, plane.shape[0] * 2
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def rows_of_band(width: int) -> int:
    return max(BAND_PIXELS // width // 2 * 2, 2)


@cache
def bgr_coefficients(matrix: YuvMatrix, *, is_full: bool) -> Coefficients:
    """Return (3, 4): blue, green and red of Y, U, V and 1. Source: ITU-R BT.601, BT.709, BT.2020."""
    red, blue = matrix.weights
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if is_full else (255 / LUMA_SPAN, 255 / CHROMA_SPAN, BLACK)
    of_u, of_v = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    rows = np.array([(luma, of_u, 0), (luma, -of_u * blue / green, -of_v * red / green), (luma, 0, of_v)])
    rows = np.round(rows / STEP) * STEP
    offsets = -black * rows[:, 0] - CENTRE * rows[:, 1:].sum(axis=1)
    return np.column_stack([rows, offsets]).astype(np.float32)


@cache
def yuv_coefficients(*, is_rounded_down: bool) -> Coefficients:
    """Return (3, 4): Y, U and V of BT.709, limited range, of blue, green, red and 1."""
    red, blue = YuvMatrix.BT709.weights
    luma = np.array([blue, 1 - red - blue, red])
    of_blue = (np.array([1, 0, 0]) - luma) / 2 / (1 - blue)
    of_red = (np.array([0, 0, 1]) - luma) / 2 / (1 - red)
    scales = np.array([[LUMA_SPAN], [CHROMA_SPAN], [CHROMA_SPAN]]) / 255
    half_level = LUMA_SPAN / 255 / 2 if is_rounded_down else 0.0
    offsets = np.array([[BLACK + half_level], [CENTRE], [CENTRE]])
    return np.hstack([np.array([luma, of_blue, of_red]) * scales, offsets]).astype(np.float32)
