"""The avatar's crop box: a square from jaw to jaw, from the bridge of the nose down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.errors import BadPackage, NoFaceFound
from inference.faces import FaceBox

Points = npt.NDArray[np.floating]

N_LMS = 110
LMS_LEFT, LMS_RIGHT, LMS_TOP = 1, 31, 52  # indices into the 110 points of upstream's landmarker
MIN_SIDE = 48  # px; a smaller face shows too little of the mouth
MAX_LMS_BYTES = 16 << 10
# Indices into the 68 points.
JAW_ENDS, NOSE = (0, 16), 29
WIDTH_MARGIN = 0.03  # of the jaw's width: how far the crop extends beyond each end of it
INNER_TOP, INNER_BOTTOM = (61, 62, 63), (67, 66, 65)  # the inner lips
LMS_INNER_TOP, LMS_INNER_BOTTOM = (103, 104, 105), (109, 108, 107)


def crop_box_from_lms(points: Points) -> FaceBox:
    """Return the crop box for upstream's 110 landmarks, (110, 2), in whole pixels.

    Source: SyncTalk_2D inference_328.py.
    """
    left, right, top = points[LMS_LEFT, 0], points[LMS_RIGHT, 0], points[LMS_TOP, 1]
    return square_box(float(left), float(right), float(top))


def crop_box_from_landmarks(points: Points) -> FaceBox:
    """Return the same crop box for 68 landmarks, (68, 2), in whole pixels.

    Upstream's 110 points of one real avatar were aligned with our points of ten people by eyes, nose and corners of the
    mouth. Its crop is 1.06 times as wide as from point 0 to 16 (0.98 to 1.14), its top is at point 29 (0.01 of the
    width above).
    """
    left, right = points[JAW_ENDS[0], 0], points[JAW_ENDS[1], 0]
    margin = WIDTH_MARGIN * (right - left)
    return square_box(float(left - margin), float(right + margin), float(points[NOSE, 1]))


def square_box(left: float, right: float, top: float) -> FaceBox:
    side = int(right) - int(left)
    return FaceBox(int(left), int(top), int(left) + side, int(top) + side)


def fit_box(box: FaceBox, width: int, height: int, what: str) -> FaceBox:
    """Move a box into the frame. Raises: NoFaceFound if it does not fit, or is too small to show a mouth."""
    side = int(box.width)
    if side < MIN_SIDE:
        raise NoFaceFound(f"{what}: a face {side} px wide from jaw to jaw; at least {MIN_SIDE} expected")
    if side > min(width, height):
        raise NoFaceFound(
            f"{what}: the square around the face is {side} px, larger than the {width}x{height} frame; step back"
        )
    left = min(max(int(box.left), 0), width - side)
    top = min(max(int(box.top), 0), height - side)
    return FaceBox(left, top, left + side, top + side)


def mouth_gap(points: Points) -> float:
    """Return the gap between the lips as a share of the crop's side. points: (68, 2), or upstream's (110, 2)."""
    if len(points) == N_LMS:
        top, bottom, box = LMS_INNER_TOP, LMS_INNER_BOTTOM, crop_box_from_lms(points)
    else:
        top, bottom, box = INNER_TOP, INNER_BOTTOM, crop_box_from_landmarks(points)
    gaps = points[list(bottom)] - points[list(top)]
    return float(np.hypot(*gaps.T).mean() / max(box.width, 1))


def read_lms(path: Path) -> npt.NDArray[np.float64]:
    """Read the 110 points of a .lms file, one line "x y" each: (110, 2). Raises: BadPackage if they are invalid."""
    if path.stat().st_size > MAX_LMS_BYTES:
        raise BadPackage(f"{path}: {path.stat().st_size} bytes; at most {MAX_LMS_BYTES} expected for {N_LMS} points")
    try:
        rows = [[float(value) for value in line.split()] for line in path.read_text("utf-8").splitlines() if line]
        points = np.array(rows, np.float64)
    except ValueError as err:
        raise BadPackage(f'{path}: not lines of "x y" ({err})') from err
    if points.shape != (N_LMS, 2) or not np.isfinite(points).all():
        raise BadPackage(f"{path}: {len(rows)} points; expected {N_LMS}, two numbers each")
    return points


def read_all_lms(folder: Path) -> list[npt.NDArray[np.float64]]:
    """Read the points of 0.lms, 1.lms, ... Raises: BadPackage if a file is missing or invalid."""
    numbers = sorted(int(path.stem) for path in folder.glob("*.lms") if path.stem.isdecimal())
    if numbers != list(range(len(numbers))) or not numbers:
        missing = next((i for i in range(len(numbers) + 1) if i not in set(numbers)), 0)
        raise BadPackage(f"{folder}: {missing}.lms is missing; expected 0.lms, 1.lms, ... one per frame")
    return [read_lms(folder / f"{i}.lms") for i in numbers]


def interpolate_missing(found: Sequence[Points | None]) -> list[Points]:
    """Return the points of every frame. Frames without a face get points interpolated from the nearest frames with one.

    Raises: ValueError if no frame has points.
    """
    known = [i for i, points in enumerate(found) if points is not None]
    if not known:
        raise ValueError("no frame has landmarks")
    stacked = np.stack([np.asarray(found[i], np.float64) for i in known]).reshape(len(known), -1)
    frames = np.arange(len(found))
    filled = np.stack([np.interp(frames, known, column) for column in stacked.T], axis=1)
    return list(filled.reshape(len(found), -1, 2))
