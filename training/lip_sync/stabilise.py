"""Faces of one clip laid on one another, so that only what talks moves.

A face's box ends below its chin: an open mouth makes it taller, and all else in it flatter. Whoever is shown the upper
half of a frame as it was cut can tell the mouth from it. So each frame is laid with its upper half on that of the
clip's middle frame; then the upper half of one goes with the lower half of any other.
"""

from __future__ import annotations

import cv2
import numpy as np

from inference.lip_sync.preprocess import MASKED_FROM, SIDE
from training.lip_sync.face_packs import KEPT, MARGIN, Bytes, Floats

SMOOTHING_PX = 1.0  # sigma, of the pictures that are compared
STEPS, CLOSE_ENOUGH = 30, 1e-4  # of the search for a place
ASIDE = 8  # px left and right of a face in its crop that show what is behind it


def steady(faces: Bytes, lips: Floats) -> tuple[Bytes, Floats]:
    """Faces (T, 120, 120, 3) and lips (T, 20, 2) px of the inner 96, both moved.

    Raises: ValueError where a frame's upper half is not found in the middle one's.
    """
    flat = [cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), (0, 0), SMOOTHING_PX) for face in faces]
    middle = flat[len(flat) // 2]
    moved, points = [], []
    for frame, (face, grey, mouth) in enumerate(zip(faces, flat, lips, strict=True)):
        matrix = lay_on(np.asarray(middle, np.uint8), np.asarray(grey, np.uint8), frame)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved.append(cv2.warpAffine(face, matrix, (KEPT, KEPT), flags=flags, borderMode=cv2.BORDER_REPLICATE))
        points.append((mouth + MARGIN - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - MARGIN)
    return np.asarray(np.stack(moved), np.uint8), np.stack(points).astype(np.float32)


def lay_on(middle: Bytes, grey: Bytes, frame: int) -> Floats:
    """(2, 3): where a picture (120, 120) has what the middle one has at a point, by their upper halves."""
    start = np.eye(2, 3, dtype=np.float32)
    enough = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, STEPS, CLOSE_ENOUGH)
    try:
        _, matrix = cv2.findTransformECC(middle, grey, start, cv2.MOTION_AFFINE, enough, upper_half(), 1)
    except cv2.error as err:
        raise ValueError(f"frame {frame}: its upper half is not found in that of the middle frame") from err
    return np.asarray(matrix, np.float32)


def upper_half() -> Bytes:
    mask = np.zeros((KEPT, KEPT), np.uint8)
    mask[MARGIN : MARGIN + MASKED_FROM, MARGIN + ASIDE : MARGIN + SIDE - ASIDE] = 255
    return mask
