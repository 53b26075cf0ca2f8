"""The orientation of frames: display matrices, which FFmpeg also makes of EXIF tags and of HEIF properties."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import Type

from inference.media.frames import Frame
from inference.media.side_data import find_side_data

MATRIX_FORMAT = "=9i"  # libavutil/display.h: 3 x 3, row by row, 16.16 fixed point, in the machine's byte order


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become upright: first transposed, then mirrored. One of the eight of EXIF."""

    is_transposed: bool = False
    is_mirrored: bool = False  # left to right
    is_flipped: bool = False  # top to bottom

    @classmethod
    def of_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """Return the orientation nearest to a matrix that maps a pixel (x, y) to (a x + c y, b x + d y).

        Its scale is ignored, and an angle is rounded to a quarter turn. Upright if it maps all pixels onto a line.
        """
        if a * d == b * c:
            return UPRIGHT
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(is_mirrored=a < 0, is_flipped=d < 0)
        return cls(is_transposed=True, is_mirrored=c < 0, is_flipped=b < 0)

    def apply(self, pixels: Frame) -> Frame:
        """Return the upright pixels; the same array if they are stored upright. pixels: (H, W, C)."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.is_transposed else pixels
        turned = turned[:, ::-1] if self.is_mirrored else turned
        return np.ascontiguousarray(turned[::-1] if self.is_flipped else turned)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of upright pixels stored in this size, or stored of these if upright."""
        return (height, width) if self.is_transposed else (width, height)


UPRIGHT = Orientation()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the orientation that the frame's display matrix asks for."""
    matrix = find_side_data(frame, Type.DISPLAYMATRIX)
    return UPRIGHT if matrix is None else read_matrix(matrix)


def read_matrix(packed: bytes) -> Orientation:
    """Return the orientation nearest to a display matrix, up to its translation; upright if it is invalid."""
    if len(packed) != struct.calcsize(MATRIX_FORMAT):
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack(MATRIX_FORMAT, packed)
    return Orientation.of_matrix(a, b, c, d)
