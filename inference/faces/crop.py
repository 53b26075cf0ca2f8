"""Alignment of faces to a mean face, and mouth crops."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]

ALIGNED_SIDE = 256  # pixels; side of the square in which faces are aligned
MEAN_FACE_PADDING = 0.25  # share of the face's side, added around it
ALIGN_POINTS = slice(17, 68)  # all points but the jaw, which moves with speech
MOUTH_ROWS, MOUTH_COLUMNS = slice(139, 219), slice(46, 206)  # rows and columns of the aligned square
# The part of it that is drawn: up to the mouth's last row and column, but in whole vectors of 16 pixels, as OpenCV
# rounds those of an incomplete one otherwise.
DRAWN_WIDTH, DRAWN_HEIGHT = -(-MOUTH_COLUMNS.stop // 16) * 16, MOUTH_ROWS.stop
CROP_WIDTH, CROP_HEIGHT = 128, 64  # pixels

# Points 17..67 of the mean face that LipCoordNet was trained with; 0..1 spans the face itself.
MEAN_FACE_UNIT = np.array(
    [
        *[(0.000213256, 0.106454), (0.0752622, 0.038915), (0.18113, 0.0187482), (0.29077, 0.0344891)],
        *[(0.393397, 0.0773906), (0.586856, 0.0773906), (0.689483, 0.0344891), (0.799124, 0.0187482)],
        *[(0.904991, 0.038915), (0.98004, 0.106454)],  # brows 17-26
        *[(0.490127, 0.203352), (0.490127, 0.307009), (0.490127, 0.409805), (0.490127, 0.515625)],
        *[(0.36688, 0.587326), (0.426036, 0.609345), (0.490127, 0.628106), (0.554217, 0.609345)],
        *[(0.613373, 0.587326)],  # nose 27-35
        *[(0.121737, 0.216423), (0.187122, 0.178758), (0.265825, 0.179852), (0.334606, 0.231733)],
        *[(0.260918, 0.245099), (0.182743, 0.244077)],
        *[(0.645647, 0.231733), (0.714428, 0.179852), (0.793132, 0.178758), (0.858516, 0.216423)],
        *[(0.79751, 0.244077), (0.719335, 0.245099)],  # eyes 36-47
        *[(0.254149, 0.780233), (0.340985, 0.745405), (0.428858, 0.727388), (0.490127, 0.742578)],
        *[(0.551395, 0.727388), (0.639268, 0.745405), (0.726104, 0.780233), (0.642159, 0.864805)],
        *[(0.556721, 0.902192), (0.490127, 0.909281), (0.423532, 0.902192), (0.338094, 0.864805)],
        *[(0.290379, 0.784792), (0.428096, 0.778746), (0.490127, 0.785343), (0.552157, 0.778746)],
        *[(0.689874, 0.784792), (0.553364, 0.824182), (0.490127, 0.831803), (0.42689, 0.824182)],
    ]  # outer lips 48-59, inner lips 60-67
)
MEAN_FACE = (MEAN_FACE_UNIT + MEAN_FACE_PADDING) / (2 * MEAN_FACE_PADDING + 1) * ALIGNED_SIDE


def fit_similarity(points: Points, target: Points) -> npt.NDArray[np.float64]:
    """Fit the rotation, scale and shift that bring `points` nearest to `target`: (2, 3) affine, float64.

    points, target: (n, 2). Procrustes analysis by least squares; scale is the ratio of the standard deviations over
    both axes.
    Raises: ValueError if all points are equal.
    Source: SilentSpeak/LipCoordNet inference.py transformation_from_points.
    """
    source, goal = points.astype(np.float64), target.astype(np.float64)
    source_centre, goal_centre = source.mean(axis=0), goal.mean(axis=0)
    source, goal = source - source_centre, goal - goal_centre
    source_spread, goal_spread = source.std(), goal.std()
    if source_spread == 0:
        raise ValueError("all landmarks are at one point")
    u, _, v_t = np.linalg.svd((source / source_spread).T @ (goal / goal_spread))
    rotation = (u @ v_t).T * (goal_spread / source_spread)
    return np.column_stack([rotation, goal_centre - rotation @ source_centre])


def crop_mouth(frame_bgr: Frame, points68: Points) -> Frame:
    """Align a face to the mean face and crop its mouth.

    frame_bgr: (H, W, 3) uint8; points68: (68, 2) x, y in its pixels. Returns: (64, 128, 3) uint8 BGR.
    Source: SilentSpeak/LipCoordNet inference.py load_video. Deliberately different: faces more than
    twice the aligned size are downscaled by averaging first; upstream's warp would skip their pixels.
    """
    to_aligned = fit_similarity(points68[ALIGN_POINTS], MEAN_FACE)
    frame_bgr, to_aligned = downscale_before_alignment(frame_bgr, to_aligned)
    aligned = cv2.warpAffine(frame_bgr, to_aligned, (DRAWN_WIDTH, DRAWN_HEIGHT))
    mouth = aligned[MOUTH_ROWS, MOUTH_COLUMNS]
    return cv2.resize(mouth, (CROP_WIDTH, CROP_HEIGHT)).astype(np.uint8, copy=False)


def downscale_before_alignment(
    frame: Frame, to_aligned: npt.NDArray[np.float64]
) -> tuple[Frame, npt.NDArray[np.float64]]:
    """Downscale the pixels around the face by 1/2, 1/3, ... if alignment shrinks them to half or less.

    Returns: the frame and the affine map, adapted to it; both unchanged if no downscaling is needed.
    """
    scale = math.hypot(to_aligned[0, 0], to_aligned[1, 0])
    factor = math.floor(1 / scale) if scale > 0 else 1
    if factor < 2:
        return frame, to_aligned
    left, top, right, bottom = source_bounds(to_aligned, frame.shape)
    width, height = (right - left) // factor, (bottom - top) // factor
    if width < 1 or height < 1:
        return frame, to_aligned
    pixels = frame[top : top + height * factor, left : left + width * factor]
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    # pixel s of the small frame has its centre at left + (s + .5) * factor - .5 in the frame
    corner = np.array([left, top]) + (factor - 1) / 2
    rotation = to_aligned[:, :2]
    return small, np.column_stack([rotation * factor, rotation @ corner + to_aligned[:, 2]])


def source_bounds(to_aligned: npt.NDArray[np.float64], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part of a frame that the aligned square is taken from: left, top, right, bottom."""
    to_frame = cv2.invertAffineTransform(to_aligned)
    corners = np.array([(x, y, 1) for x in (0, ALIGNED_SIDE) for y in (0, ALIGNED_SIDE)]) @ to_frame.T
    low, high = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 2
    height, width = shape[:2]
    return max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), width), min(int(high[1]), height)
