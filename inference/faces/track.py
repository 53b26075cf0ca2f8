"""Tracking of one face through a video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from inference.faces.box import Detection, Face, FaceBox, FaceRegion
from inference.faces.cuts import SIDE, CutDetector, FrameChange
from inference.faces.landmarks import Landmarker

Frame = npt.NDArray[np.uint8]

# "largest", or an index from 0, left to right, in the first frame with that many faces.
FaceChoice = Literal["largest"] | int
# One entry per frame of a clip; None if the face was not found.
FaceTrack = tuple[Face | None, ...]

DETECT_EVERY = 25  # frames between detections: one second
DRIFT_EVERY = 5  # frames between detections while the view changes gradually
SAME_FACE_OVERLAP = 0.3
# Of the faces of two frames that differ; more is a cut: the distance, as a share of the width; the ratio of the sizes.
MAX_MOVE, MAX_SIZE_RATIO = 0.25, 1.25
# Score of landmarks, from which the angle of the head is certain. On five people at twelve angles MediaPipe's logit was
# 13.7 or more at the right angle and 11.8 or less when turned by a quarter or a half.
CERTAIN_SCORE = 1 / (1 + math.exp(-13))
MIN_UNCLEAR_SCORE = 0.6  # of a detection that counts as a face without landmarks; heads in profile have 0.6 to 0.8
MIN_JUMP_SCORE = 0.7  # of a detection elsewhere that is believed although nothing else shows a cut
DOUBTFUL_SCORE = 0.8  # of landmarks; if it falls below, the detector is asked
REACQUIRE_FRAMES = 12  # frames for which the last region is tried before detection in the whole frame
MAX_LOST_FRAMES = 25  # frames to wait for a lost face before another one is tracked
# A thorough search, for small and turned faces, runs if nothing else is found: in the first frame, then once a second,
# and at cuts that are no closer than this.
THOROUGH_EVERY, THOROUGH_EVERY_SHOT = 25, 5  # frames
SMALL_SHARE = 0.04  # of the longer side: width of a face that the other searches miss
EVERY_FRAME = 1  # value of `detect_every` that detects in every frame


class FaceTracker:
    """Tracks one face from frame to frame.

    The landmarks of one frame give the region to search in the next. The detector runs if there is nothing to track,
    and every `detect_every` frames, to notice that the tracked region is no longer a face. With `detect_every=1`
    (exact), or a landmarker with `must_detect`, the landmarks of each frame start from its own detection.
    Behind a cut the face is detected again: the largest, or the one of the index, unless one is where it was. The
    detector also runs if the frame or the landmarks differ more than a moving head explains.
    """

    def __init__(
        self, landmarker: Landmarker, choice: FaceChoice = "largest", detect_every: int = DETECT_EVERY
    ) -> None:
        self.max_faces_found = 0  # largest number of faces found in one frame
        self.unclear: FaceBox | None = None  # of the last frame: a face that is not the one, or without clear landmarks
        self._landmarker = landmarker
        self._choice = choice
        self._detect_every = detect_every
        self._cuts = CutDetector()
        self._face: Face | None = None  # face in the last frame
        self._last_face: Face | None = None  # last face that was found in this shot
        self._last_box: FaceBox | None = None  # its box, or that of the shot before
        self._is_new_shot = False  # whether no face was found since the cut
        self._frame: Frame | None = None
        self._has_unclear = False  # whether any frame had one
        self._since_detection = 0
        self._since_thorough = THOROUGH_EVERY
        self._n_lost = 0

    def follow(self, frames: Sequence[Frame]) -> FaceTrack:
        """Return the face in each of the next frames; (H, W, 3) uint8 BGR, whose sizes may change."""
        return tuple(self._track_frame(frame) for frame in frames)

    def explain_no_face(self, n_frames: int) -> str:
        """Explain why none of `n_frames` frames showed the face."""
        if self._choice == "largest" or self.max_faces_found == 0:
            found = "only faces in profile or unclear ones" if self._has_unclear else "no face found"
            return f"{found} in {n_frames} frames"
        return (
            f"face {self._choice} was asked for, counted from 0, but no frame shows more than "
            f"{self.max_faces_found} face{'s' if self.max_faces_found > 1 else ''}"
        )

    def _track_frame(self, frame: Frame) -> Face | None:
        if frame is self._frame:  # a repeated frame: the rate was raised
            return self._face
        if self._frame is not None and frame.shape != self._frame.shape:
            self._last_face = self._last_box = None  # their coordinates are for another size: detect again
        self._frame, self.unclear = frame, None
        self._since_thorough += 1
        face = self._find_face(frame, self._cuts.add(frame))
        if face is None:
            self._n_lost += 1
        else:
            self._last_face, self._last_box, self._n_lost, self._is_new_shot = face, face.box, 0, False
        self._face = face if face is None or self._cuts.shot == 0 else replace(face, shot=self._cuts.shot)
        return self._face

    def _find_face(self, frame: Frame, change: FrameChange) -> Face | None:
        if change is FrameChange.CUT:
            self._forget_shot()
        last = self._last_face
        if last is None:
            return self._redetect(frame)
        must_detect = self._must_detect(frame, last)
        if change is FrameChange.POSSIBLE:
            face = self._check_for_cut(frame, last)
            return face if face is not None or must_detect else self._track_from(frame, last)
        return self._redetect(frame) if must_detect else self._track_from(frame, last)

    def _forget_shot(self) -> None:
        self._last_face, self._is_new_shot, self._n_lost = None, True, 0

    def _must_detect(self, frame: Frame, last: Face) -> bool:
        self._since_detection += 1
        if self._n_lost > REACQUIRE_FRAMES or self._landmarker.must_detect:
            return True
        return self._detect_every == EVERY_FRAME and not is_small(last.box, frame)

    def _check_for_cut(self, frame: Frame, last: Face) -> Face | None:
        """Find the face of a frame that may be of another shot: it is, if the face is elsewhere or of another size."""
        face = self._redetect(frame, is_elsewhere_allowed=True)
        if face is not None and self._n_lost == 0 and not self._is_new_shot:
            height, width = frame.shape[:2]
            cell = max(width, height) / SIDE  # how exactly the shift of the view is known
            shift = self._cuts.shift[0] * width, self._cuts.shift[1] * height
            if has_moved(last.box, face.box, shift, cell):
                self._cuts.begin_shot()
        return face

    def _track_from(self, frame: Frame, last: Face) -> Face | None:
        face = self._landmarker.find_landmarks(frame, last.region)
        if face is None:
            return self._redetect(frame)
        if self._must_confirm(face, last) and not self._is_confirmed(frame, face):
            return self._redetect(frame)
        return face

    def _must_confirm(self, face: Face, last: Face) -> bool:
        if self._since_detection >= self._detect_every:
            return True
        if self._n_lost == 0 and (
            face.score < DOUBTFUL_SCORE <= last.score or face.box.overlap(last.box) < SAME_FACE_OVERLAP
        ):
            return True
        return self._since_detection % DRIFT_EVERY == 0 and self._cuts.has_drifted()

    def _is_confirmed(self, frame: Frame, face: Face) -> bool:
        self._since_detection = 0
        found = self._landmarker.detect(frame)
        self.max_faces_found = max(self.max_faces_found, len(found))
        return not found or any(one.box.overlap(face.box) >= SAME_FACE_OVERLAP for one in found)

    def _redetect(self, frame: Frame, is_elsewhere_allowed: bool = False) -> Face | None:
        """Detect the face again. is_elsewhere_allowed: far from where it was, too; that begins a shot."""
        self._since_detection = 0
        n_wanted = 1 if self._choice == "largest" else self._choice + 1
        is_thorough = self._begin_thorough_search()
        found = self._detect(frame, n_wanted, is_thorough)
        face = self._first_with_landmarks(frame, self._candidates(found, is_elsewhere_allowed), is_thorough)
        if face is None and found and is_thorough and (self._is_new_shot or self._last_box is None):
            # What was found is no face, and it kept the detector from searching further.
            found = self._detect(frame, max(len(found) + 1, n_wanted), is_thorough)
            face = self._first_with_landmarks(frame, self._chosen(found), is_thorough)
        if face is None:
            certain = [one.box for one in found if one.score >= MIN_UNCLEAR_SCORE and not is_small(one.box, frame)]
            self.unclear = max(certain, key=lambda box: box.area, default=None)
            self._has_unclear = self._has_unclear or self.unclear is not None
        return face

    def _begin_thorough_search(self) -> bool:
        """Return whether this detection may be a thorough one, which takes long."""
        if self._since_thorough < (THOROUGH_EVERY_SHOT if self._is_new_shot else THOROUGH_EVERY):
            return False
        self._since_thorough = 0
        return True

    def _first_with_landmarks(self, frame: Frame, candidates: Iterable[Detection], is_thorough: bool) -> Face | None:
        last = self._last_face
        may_be_turned = is_thorough or (last is not None and abs(last.region.angle_rad) > math.pi / 4)
        for detection in candidates:
            face = self._landmarker.find_landmarks(frame, detection.region)
            if may_be_turned and (face is None or face.score < CERTAIN_SCORE):
                face = self._find_turned(frame, detection.region) or face
            if face is not None and (face.score >= CERTAIN_SCORE or not is_small(detection.box, frame)):
                return face
        return None

    def _find_turned(self, frame: Frame, region: FaceRegion) -> Face | None:
        """Find the landmarks of a head that is sideways or upside down, in a region that is upright to the detector."""
        angles = (region.angle_rad + quarters * math.pi / 2 for quarters in (1, 2, 3))
        found = [self._landmarker.find_landmarks(frame, replace(region, angle_rad=angle)) for angle in angles]
        return max(
            (one for one in found if one and one.score >= CERTAIN_SCORE), key=lambda one: one.score, default=None
        )

    def _detect(self, frame: Frame, n_wanted: int, is_thorough: bool) -> list[Detection]:
        found = self._landmarker.detect(frame, n_wanted, is_thorough)
        self.max_faces_found = max(self.max_faces_found, len(found))
        return found

    def _candidates(self, found: list[Detection], is_elsewhere_allowed: bool) -> list[Detection]:
        """Return the detections to try, best first."""
        if self._last_box is not None:
            nearest = nearest_to(self._last_box, found)
            if self._is_new_shot:
                same = [nearest] if nearest and nearest.box.overlap(self._last_box) >= SAME_FACE_OVERLAP else []
                return same + [one for one in self._chosen(found) if one not in same]
            if nearest is not None:
                return [nearest]
            if found and (is_elsewhere_allowed or self._has_jumped(found) or self._cuts.has_drifted()):
                self._cuts.begin_shot()
                self._forget_shot()
            elif self._n_lost < MAX_LOST_FRAMES:
                return []
        return self._chosen(found)

    def _has_jumped(self, found: list[Detection]) -> bool:
        """Return whether the only face of the video is suddenly elsewhere."""
        is_only = len(found) == 1 and self.max_faces_found == 1
        return self._n_lost == 0 and is_only and found[0].score >= MIN_JUMP_SCORE

    def _chosen(self, found: list[Detection]) -> list[Detection]:
        if self._choice == "largest":
            return sorted(found, key=lambda d: -d.box.area)
        left_to_right = sorted(found, key=lambda d: d.box.centre[0])
        return left_to_right[self._choice : self._choice + 1]


def has_moved(before: FaceBox, after: FaceBox, shift: tuple[float, float], tolerance: float) -> bool:
    """Return whether a face is elsewhere, or of another size, than the shift of the view explains, all in pixels."""
    expected = before.centre[0] + shift[0], before.centre[1] + shift[1]
    if math.dist(expected, after.centre) > MAX_MOVE * before.width + tolerance:
        return True
    ratio = math.sqrt(max(after.area, 1) / max(before.area, 1))
    return not 1 / MAX_SIZE_RATIO < ratio < MAX_SIZE_RATIO


def is_small(box: FaceBox, frame: Frame) -> bool:
    """Return whether only a thorough search finds a face of this size."""
    return bool(box.width < SMALL_SHARE * max(frame.shape[:2]))


def nearest_to(box: FaceBox, found: list[Detection]) -> Detection | None:
    """Return the detection that is most likely the face last found at `box`; None if all are far from it."""
    if not found:
        return None

    def distance(one: Detection) -> float:
        return math.dist(one.box.centre, box.centre)

    nearest = min(found, key=distance)
    return nearest if distance(nearest) <= max(box.width, box.height) else None
