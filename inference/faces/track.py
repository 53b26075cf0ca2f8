"""One face followed through a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from inference.faces.box import Detection, Face, FaceBox
from inference.faces.landmarks import Landmarker

Frame = npt.NDArray[np.uint8]

# "largest", or which one counted from 0, left to right, in the first frame that shows that many.
FaceChoice = Literal["largest"] | int
# One entry for each frame of a clip; None where the face was not seen.
FaceTrack = tuple[Face | None, ...]

DETECT_EVERY = 25  # frames: a second
SAME_FACE_OVERLAP = 0.3
BLINK = 12  # frames: so long a face that comes back is looked for where it was, before anywhere else
PATIENCE = 25  # frames: so long a lost face is waited for before another is taken
EXACT = 1  # detect_every: look anew in every frame


class FaceTracker:
    """Follows one face from frame to frame.

    Landmarks of one frame say where to look in the next. The detector runs where there is nothing
    to follow and every `detect_every` frames, to notice that what is followed is not a face any
    more; with `detect_every=1` (exact), or a landmarker that must, each frame's landmarks start from
    its own detection.
    """

    def __init__(
        self, landmarker: Landmarker, choice: FaceChoice = "largest", detect_every: int = DETECT_EVERY
    ) -> None:
        self.most_faces = 0  # seen in one frame
        self._landmarker = landmarker
        self._choice = choice
        self._detect_every = detect_every
        self._face: Face | None = None  # in the last frame
        self._last_face: Face | None = None  # that was seen at all
        self._last_seen: FaceBox | None = None
        self._frame: Frame | None = None
        self._since_detection = 0
        self._lost_for = 0

    def follow(self, frames: Sequence[Frame]) -> FaceTrack:
        """The face in each of the next frames; (H, W, 3) uint8 BGR, their sizes may change."""
        return tuple(self._follow_one(frame) for frame in frames)

    def explain_nothing(self, n_frames: int) -> str:
        """Why none of so many frames showed the face."""
        if self._choice == "largest" or self.most_faces == 0:
            return f"no face found in {n_frames} frames"
        return (
            f"face {self._choice} was asked for, counted from 0, but no frame shows more than "
            f"{self.most_faces} face{'s' if self.most_faces > 1 else ''}"
        )

    def _follow_one(self, frame: Frame) -> Face | None:
        if frame is self._frame:  # shown again: the rate was raised
            return self._face
        if self._frame is not None and frame.shape != self._frame.shape:
            self._last_face = self._last_seen = None  # their pixels are of another size: look with fresh eyes
        self._frame = frame
        last = self._last_face
        self._face = self._look_anew(frame) if last is None or self._must_detect() else self._look_near(frame, last)
        if self._face is None:
            self._lost_for += 1
        else:
            self._last_face, self._last_seen, self._lost_for = self._face, self._face.box, 0
        return self._face

    def _must_detect(self) -> bool:
        self._since_detection += 1
        return self._lost_for > BLINK or self._detect_every == EXACT or self._landmarker.must_detect

    def _look_near(self, frame: Frame, last: Face) -> Face | None:
        face = self._landmarker.find_landmarks(frame, last.region)
        if face is None:
            return self._look_anew(frame)
        if self._since_detection >= self._detect_every and not self._is_detected(frame, face):
            return self._look_anew(frame)
        return face

    def _is_detected(self, frame: Frame, face: Face) -> bool:
        self._since_detection = 0
        found = self._landmarker.detect(frame)
        return not found or any(one.box.overlap(face.box) >= SAME_FACE_OVERLAP for one in found)

    def _look_anew(self, frame: Frame) -> Face | None:
        self._since_detection = 0
        n_wanted = 1 if self._choice == "largest" else self._choice + 1
        found = self._landmarker.detect(frame, n_wanted)
        self.most_faces = max(self.most_faces, len(found))
        for detection in self._in_order(found):
            face = self._landmarker.find_landmarks(frame, detection.region)
            if face is not None:
                return face
        return None

    def _in_order(self, found: list[Detection]) -> list[Detection]:
        """Which detections to try, best first."""
        if self._last_seen is not None:
            near = nearest_to(self._last_seen, found)
            if near is not None or self._lost_for < PATIENCE:
                return [near] if near else []
        if self._choice == "largest":
            return sorted(found, key=lambda d: -d.box.area)
        left_to_right = sorted(found, key=lambda d: d.box.centre[0])
        return left_to_right[self._choice : self._choice + 1]


def nearest_to(box: FaceBox, found: list[Detection]) -> Detection | None:
    """The detection that is most likely the face last seen at `box`; None where all are far from it."""
    if not found:
        return None

    def distance(one: Detection) -> float:
        return math.dist(one.box.centre, box.centre)

    near = min(found, key=distance)
    return near if distance(near) <= max(box.width, box.height) else None
