"""Tracking of all faces of a video at once, to choose among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.faces import Face, FaceBox, Landmarker
from inference.faces.box import Detection, FaceRegion
from inference.faces.cuts import CutDetector, FrameChange
from inference.faces.track import REACQUIRE_FRAMES, SAME_FACE_OVERLAP, Frame, is_small

MAX_FACES = 6  # tracked at a time, the largest first
N_WANTED = 4  # faces for which the detector searches further
DETECT_EVERY = 12  # frames between detections
RETRY_EVERY = 4  # frames between detections while a face is lost
THOROUGH_EVERY = 25  # frames between searches for small faces, as long as no face is found
REGION_OF_BOX = 1.5  # side of the region over that of the box, as MediaPipe's detector has it
MAX_SHARED = 0.5  # overlap of two tracks from which they are on the same face


@dataclass
class LiveTrack:
    """A face that is being tracked. n_lost: frames since it was last found."""

    number: int
    face: Face
    n_lost: int = 0

    def is_at(self, box: FaceBox) -> bool:
        """Return whether a detection is this face: in its last place, or near that if it has been lost since."""
        if self.face.box.overlap(box) >= SAME_FACE_OVERLAP:
            return True
        distance = math.dist(self.face.box.centre, box.centre)
        return self.n_lost > 0 and distance <= max(box.width, box.height)


class FaceGroupTracker:
    """Tracks all faces from frame to frame: each has a number, until it is lost or the shot ends.

    shot: number of cuts before the last frame.
    """

    def __init__(self, landmarker: Landmarker) -> None:
        self._landmarker = landmarker
        self._cuts = CutDetector()
        self._tracks: list[LiveTrack] = []
        self._n_tracks = 0
        self._since_detection = self._since_thorough = 1_000_000

    @property
    def shot(self) -> int:
        return self._cuts.shot

    def follow(self, frame: Frame) -> list[tuple[int, Face]]:
        """Return the faces of the next frame with their numbers; (H, W, 3) uint8 BGR."""
        change = self._cuts.add(frame)
        self._since_detection += 1
        self._since_thorough += 1
        if change is FrameChange.CUT:
            self._tracks = []
        for track in self._tracks:
            self._update(track, frame)
        self._tracks = [track for track in self._tracks if track.n_lost <= REACQUIRE_FRAMES]
        self._drop_doubles()
        if self._must_detect(change):
            self._detect(frame, change)
        return [(track.number, track.face) for track in self._tracks if track.n_lost == 0]

    def _update(self, track: LiveTrack, frame: Frame) -> None:
        face = self._landmarker.find_landmarks(frame, track.face.region)
        if face is None or face.box.overlap(track.face.box) < SAME_FACE_OVERLAP:
            track.n_lost += 1
        else:
            track.face, track.n_lost = face, 0

    def _drop_doubles(self) -> None:
        """Drop the later of two tracks that are on the same face."""
        kept: list[LiveTrack] = []
        for track in self._tracks:
            if all(track.face.box.overlap(one.face.box) < MAX_SHARED for one in kept):
                kept.append(track)
        self._tracks = kept

    def _must_detect(self, change: FrameChange) -> bool:
        is_complete = bool(self._tracks) and all(track.n_lost == 0 for track in self._tracks)
        return change is not FrameChange.NONE or self._since_detection >= (DETECT_EVERY if is_complete else RETRY_EVERY)

    def _detect(self, frame: Frame, change: FrameChange) -> None:
        self._since_detection = 0
        is_thorough = not self._tracks and self._since_thorough >= THOROUGH_EVERY
        self._since_thorough = 0 if is_thorough else self._since_thorough
        found = sorted(self._landmarker.detect(frame, N_WANTED, is_thorough), key=lambda one: -one.box.area)
        if change is FrameChange.POSSIBLE and self._tracks and found and not any(self._known(one) for one in found):
            self._cuts.begin_shot()
            self._tracks = []
        for detection in found:
            known = self._known(detection)
            if (known is None and len(self._tracks) < MAX_FACES) or (known is not None and known.n_lost):
                self._start(frame, detection, known)

    def _known(self, detection: Detection) -> LiveTrack | None:
        return next((track for track in self._tracks if track.is_at(detection.box)), None)

    def _start(self, frame: Frame, detection: Detection, lost: LiveTrack | None) -> None:
        """Start a track, or continue a lost one, if the landmarks are found."""
        face = None if is_small(detection.box, frame) else self._landmarker.find_landmarks(frame, detection.region)
        others = [track.face.box for track in self._tracks if not track.n_lost]
        if face is None or any(box.overlap(face.box) >= MAX_SHARED for box in others):
            return
        if lost is not None:
            lost.face, lost.n_lost = face, 0
            return
        self._tracks.append(LiveTrack(self._n_tracks, face))
        self._n_tracks += 1


def region_of_box(box: FaceBox) -> FaceRegion:
    """Return the region to search for the landmarks of an upright face in its box."""
    x, y = box.centre
    return FaceRegion(x, y, REGION_OF_BOX * max(box.width, box.height), 0.0)
