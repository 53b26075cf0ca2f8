"""Align the faces of one clip, so that only the mouth moves.

A face's box ends below its chin: an open mouth makes it taller, and everything else in it flatter. A network that gets
the upper half of a frame as it was cropped can infer the mouth from that. So the upper half of each frame is aligned to
that of the clip's middle frame; then the upper half of one frame fits the lower half of any other.
"""

from __future__ import annotations

import cv2
import numpy as np

from inference.lip_sync.preprocess import FACE_SIZE, MASKED_FROM
from training.common.arrays import Bytes, Floats
from training.common.face_packs import MARGIN, PACKED_SIDE

SMOOTHING_PX = 1.0  # sigma of the blur before images are compared
MAX_ITERATIONS, TOLERANCE = 30, 1e-4  # of the alignment
BACKGROUND_PX = 8  # columns at the left and right of a face that show the background


def stabilise(faces: Bytes, lips: Floats) -> tuple[Bytes, Floats]:
    """Align faces (T, 120, 120, 3) and their lips (T, 20, 2), px of the inner 96.

    Raises: ValueError if a frame's upper half cannot be aligned to the middle one's.
    """
    grey = [cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), (0, 0), SMOOTHING_PX) for face in faces]
    middle = grey[len(grey) // 2]
    aligned, points = [], []
    for frame, (face, image, mouth) in enumerate(zip(faces, grey, lips, strict=True)):
        matrix = find_alignment(np.asarray(middle, np.uint8), np.asarray(image, np.uint8), frame)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (PACKED_SIDE, PACKED_SIDE)
        aligned.append(cv2.warpAffine(face, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))
        points.append((mouth + MARGIN - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - MARGIN)
    return np.asarray(np.stack(aligned), np.uint8), np.stack(points).astype(np.float32)


def find_alignment(middle: Bytes, image: Bytes, frame: int) -> Floats:
    """Return the affine map (2, 3) from points of the middle image (120, 120) to another's, by their upper halves."""
    start = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, MAX_ITERATIONS, TOLERANCE)
    try:
        _, matrix = cv2.findTransformECC(middle, image, start, cv2.MOTION_AFFINE, criteria, upper_half(), 1)
    except cv2.error as err:
        raise ValueError(f"frame {frame}: its upper half cannot be aligned to that of the middle frame") from err
    return np.asarray(matrix, np.float32)


def upper_half() -> Bytes:
    """Return a mask of the upper half of a face, without background."""
    mask = np.zeros((PACKED_SIDE, PACKED_SIDE), np.uint8)
    mask[MARGIN : MARGIN + MASKED_FROM, MARGIN + BACKGROUND_PX : MARGIN + FACE_SIZE - BACKGROUND_PX] = 255
    return mask
