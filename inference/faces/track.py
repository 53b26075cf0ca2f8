"""Tracking of one face through a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from inference.faces.box import Detection, Face, FaceBox
from inference.faces.landmarks import Landmarker

Frame = npt.NDArray[np.uint8]

# "largest", or an index from 0, left to right, in the first frame with that many faces.
FaceChoice = Literal["largest"] | int
# One entry per frame of a clip; None if the face was not found.
FaceTrack = tuple[Face | None, ...]

DETECT_EVERY = 25  # frames between detections: one second
SAME_FACE_OVERLAP = 0.3
REACQUIRE_FRAMES = 12  # frames for which the last region is tried before detection in the whole frame
MAX_LOST_FRAMES = 25  # frames to wait for a lost face before another one is tracked
EVERY_FRAME = 1  # value of `detect_every` that detects in every frame


class FaceTracker:
    """Tracks one face from frame to frame.

    The landmarks of one frame give the region to search in the next. The detector runs if there is nothing to track,
    and every `detect_every` frames, to notice that the tracked region is no longer a face. With `detect_every=1`
    (exact), or a landmarker with `must_detect`, the landmarks of each frame start from its own detection.
    """

    def __init__(
        self, landmarker: Landmarker, choice: FaceChoice = "largest", detect_every: int = DETECT_EVERY
    ) -> None:
        self.max_faces_found = 0  # largest number of faces found in one frame
        self._landmarker = landmarker
        self._choice = choice
        self._detect_every = detect_every
        self._face: Face | None = None  # face in the last frame
        self._last_face: Face | None = None  # last face that was found
        self._last_box: FaceBox | None = None
        self._frame: Frame | None = None
        self._since_detection = 0
        self._n_lost = 0

    def follow(self, frames: Sequence[Frame]) -> FaceTrack:
        """Return the face in each of the next frames; (H, W, 3) uint8 BGR, whose sizes may change."""
        return tuple(self._track_frame(frame) for frame in frames)

    def explain_no_face(self, n_frames: int) -> str:
        """Explain why none of `n_frames` frames showed the face."""
        if self._choice == "largest" or self.max_faces_found == 0:
            return f"no face found in {n_frames} frames"
        return (
            f"face {self._choice} was asked for, counted from 0, but no frame shows more than "
            f"{self.max_faces_found} face{'s' if self.max_faces_found > 1 else ''}"
        )

    def _track_frame(self, frame: Frame) -> Face | None:
        if frame is self._frame:  # a repeated frame: the rate was raised
            return self._face
        if self._frame is not None and frame.shape != self._frame.shape:
            self._last_face = self._last_box = None  # their coordinates are for another size: detect again
        self._frame = frame
        last = self._last_face
        self._face = self._redetect(frame) if last is None or self._must_detect() else self._track_from(frame, last)
        if self._face is None:
            self._n_lost += 1
        else:
            self._last_face, self._last_box, self._n_lost = self._face, self._face.box, 0
        return self._face

    def _must_detect(self) -> bool:
        self._since_detection += 1
        return self._n_lost > REACQUIRE_FRAMES or self._detect_every == EVERY_FRAME or self._landmarker.must_detect

    def _track_from(self, frame: Frame, last: Face) -> Face | None:
        face = self._landmarker.find_landmarks(frame, last.region)
        if face is None:
            return self._redetect(frame)
        if self._since_detection >= self._detect_every and not self._is_confirmed(frame, face):
            return self._redetect(frame)
        return face

    def _is_confirmed(self, frame: Frame, face: Face) -> bool:
        self._since_detection = 0
        found = self._landmarker.detect(frame)
        return not found or any(one.box.overlap(face.box) >= SAME_FACE_OVERLAP for one in found)

    def _redetect(self, frame: Frame) -> Face | None:
        self._since_detection = 0
        n_wanted = 1 if self._choice == "largest" else self._choice + 1
        found = self._landmarker.detect(frame, n_wanted)
        self.max_faces_found = max(self.max_faces_found, len(found))
        for detection in self._candidates(found):
            face = self._landmarker.find_landmarks(frame, detection.region)
            if face is not None:
                return face
        return None

    def _candidates(self, found: list[Detection]) -> list[Detection]:
        """Return the detections to try, best first."""
        if self._last_box is not None:
            nearest = nearest_to(self._last_box, found)
            if nearest is not None or self._n_lost < MAX_LOST_FRAMES:
                return [nearest] if nearest else []
        if self._choice == "largest":
            return sorted(found, key=lambda d: -d.box.area)
        left_to_right = sorted(found, key=lambda d: d.box.centre[0])
        return left_to_right[self._choice : self._choice + 1]


def nearest_to(box: FaceBox, found: list[Detection]) -> Detection | None:
    """Return the detection that is most likely the face last found at `box`; None if all are far from it."""
    if not found:
        return None

    def distance(one: Detection) -> float:
        return math.dist(one.box.centre, box.centre)

    nearest = min(found, key=distance)
    return nearest if distance(nearest) <= max(box.width, box.height) else None
