"""Locating a face for lip sync: its box, turned with the head, or why it cannot be synced."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inference.faces import Face, FaceBox, FaceTracker
from inference.faces.turned_box import rotate
from inference.media import Frame

JAW, BROWS = slice(0, 17), slice(17, 27)  # indices in the 68-point order
BELOW_CHIN = 0.04  # share of the height from brow to chin: landmarks are on the chin, S3FD's boxes end below it
# A head tilted further than the first angle gets a turned box, until it is back within the second one. Wav2Lip was
# trained on upright boxes of heads that tilt a little, so small tilts need none.
TURN_ABOVE_RAD, UPRIGHT_BELOW_RAD = math.radians(18), math.radians(12)
# Beyond a true 65 degrees the far half of the mouth is a guess. The mesh underrates the angle: it gives 38 degrees
# there, or less with a low score.
MAX_YAW_RAD, MAX_DOUBTFUL_YAW_RAD = math.radians(38), math.radians(20)
DOUBTFUL_SCORE = 0.97


@dataclass(frozen=True)
class LocatedFace:
    """A face in a frame.

    box: framed like those of S3FD, in pixels; turned about its centre by `angle_rad` (clockwise on the screen).
    shot: number of cuts before the frame. is_usable: False if it cannot be synced: in profile, unclear, or another one.
    """

    box: FaceBox
    angle_rad: float = 0.0
    shot: int = 0
    is_usable: bool = True


# Locates the face in a frame; None if there is no face.
FaceLocator = Callable[[Frame], LocatedFace | None]


class FaceTurn:
    """Decides from frame to frame whether the box of one face is turned with the head, once that is tilted."""

    def __init__(self) -> None:
        self._is_turned = False

    def locate(self, face: Face, shot: int | None = None) -> LocatedFace:
        """Return the box of the face in the next frame. shot: if the face does not have its number."""
        tilt = abs(face.region.angle_rad)
        self._is_turned = tilt > (UPRIGHT_BELOW_RAD if self._is_turned else TURN_ABOVE_RAD)
        return locate_face(face if shot is None else replace(face, shot=shot), self._is_turned)


class TrackingLocator:
    """Locates one face from frame to frame; its box turns with the head once that is tilted."""

    def __init__(self, tracker: FaceTracker) -> None:
        self._tracker = tracker
        self._turn = FaceTurn()

    def __call__(self, frame: Frame) -> LocatedFace | None:
        (face,) = self._tracker.follow((frame,))
        if face is None:
            self._turn = FaceTurn()
            unclear = self._tracker.unclear
            return None if unclear is None else LocatedFace(unclear, is_usable=False)
        return self._turn.locate(face)


def locate_face(face: Face, is_turned: bool) -> LocatedFace:
    """Return the box of a face: turned with the head, or upright."""
    angle_rad = face.region.angle_rad if is_turned else 0.0
    box = turned_box_of_landmarks(face.points, angle_rad) if is_turned else face_box_of_landmarks(face.points)
    return LocatedFace(box, angle_rad, face.shot, not is_profile(face))


def is_profile(face: Face) -> bool:
    """Return whether a face is turned so far to the side that its landmarks are guesses."""
    yaw = abs(face.yaw_rad)
    return yaw > MAX_YAW_RAD or (yaw > MAX_DOUBTFUL_YAW_RAD and face.score < DOUBTFUL_SCORE)


def face_box_of_landmarks(points: npt.NDArray[np.floating]) -> FaceBox:
    """Return a face box framed like those of S3FD, which Wav2Lip was trained on.

    It spans from the brows to below the chin, and the width of the jaw. points: (68, 2).
    """
    left, right = points[JAW, 0].min(), points[JAW, 0].max()
    top, chin = points[BROWS, 1].min(), points[JAW, 1].max()
    return FaceBox(float(left), float(top), float(right), float(chin + BELOW_CHIN * (chin - top)))


def turned_box_of_landmarks(points: npt.NDArray[np.floating], angle_rad: float) -> FaceBox:
    """Return the same box in the axes of a head tilted by an angle; it is to be turned about its centre."""
    upright = face_box_of_landmarks(rotate(points.astype(np.float64), -angle_rad))
    x, y = rotate(np.array(upright.centre), angle_rad).tolist()
    half_width, half_height = upright.width / 2, upright.height / 2
    return FaceBox(x - half_width, y - half_height, x + half_width, y + half_height)
