"""All faces of a video: where each is in each frame, and how far its mouth is open."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.faces import Face, Landmarker
from inference.lip_sync.box_cache import N_COLUMNS, BoxTrack, row_of_located
from inference.lip_sync.face_group import FaceGroupTracker
from inference.lip_sync.locate import FaceTurn
from inference.media import Frame

UPPER_INNER, LOWER_INNER = (61, 62, 63), (67, 66, 65)  # inner lips among the 68 landmarks, in vertical pairs
EYE_CORNERS = (36, 45)  # outer corners: their distance does not change when the mouth moves
FRAME, NUMBER, OPENING, BOX = 0, 1, 2, slice(3, 3 + N_COLUMNS)  # columns of a table
WIDTH = 3 + N_COLUMNS
LEFT, TOP, RIGHT, BOTTOM, SHOT, IS_USABLE = 0, 1, 2, 3, 5, 6  # columns of a box


@dataclass(frozen=True)
class FaceTable:
    """Faces of the distinct frames of a video.

    rows: (n, 10) float64 frame, number of the face, opening of its mouth, and the columns of `BoxTrack`; by frame.
    shown_at: (m,) number of the output's frame that first shows each distinct frame. n_frames: frames that were read,
    repeated ones included. is_whole: whether the video ends there.
    """

    rows: npt.NDArray[np.float64]
    shown_at: npt.NDArray[np.int64]
    n_frames: int
    is_whole: bool

    @property
    def n_distinct(self) -> int:
        return len(self.shown_at)

    def rows_of(self, number: int) -> npt.NDArray[np.float64]:
        return np.asarray(self.rows[self.rows[:, NUMBER] == number])

    def at_frame(self, distinct: int) -> npt.NDArray[np.float64]:
        """Return the rows of a distinct frame."""
        first, last = np.searchsorted(self.rows[:, FRAME], [distinct, distinct + 1])
        return self.rows[first:last]

    def track_of(self, chosen: npt.NDArray[np.int64]) -> BoxTrack:
        """Return the boxes of the chosen face of each distinct frame; if it is missing, another face, marked unusable.

        chosen: (m,) number of the face, -1 for none.
        """
        boxes = np.full((self.n_distinct, N_COLUMNS), np.nan)
        frames = self.rows[:, FRAME].astype(int)
        boxes[frames] = self.rows[:, BOX]
        boxes[:, IS_USABLE] = np.where(np.isnan(boxes[:, LEFT]), np.nan, 0.0)
        is_chosen = chosen[frames] == self.rows[:, NUMBER]
        boxes[frames[is_chosen]] = self.rows[is_chosen][:, BOX]
        # Boxes are averaged over frames of a shot: another face must count as another shot.
        boxes[1:, SHOT] += np.cumsum(chosen[1:] != chosen[:-1])
        return BoxTrack(boxes, self.n_frames, self.is_whole)


def tabulate_faces(frames: Iterable[Frame], landmarker: Landmarker, n_needed: int) -> FaceTable:
    """Track all faces of a video. Memory: 80 bytes for each face of a frame.

    n_needed: number of frames to read at most.
    """
    tracker, turns = FaceGroupTracker(landmarker), dict[int, FaceTurn]()
    rows, shown_at = array("d"), array("q")
    last: Frame | None = None
    n_frames, is_whole = 0, True
    for frame in frames:
        if n_frames == n_needed:
            is_whole = False
            break
        if frame is not last:
            for number, face in tracker.follow(frame):
                located = turns.setdefault(number, FaceTurn()).locate(face, tracker.shot)
                rows.extend((len(shown_at), number, opening_of(face), *row_of_located(located)))
            shown_at.append(n_frames)
        last = frame
        n_frames += 1
    table = np.array(rows, np.float64).reshape(-1, WIDTH)
    return FaceTable(table, np.array(shown_at, np.int64), n_frames, is_whole)


def opening_of(face: Face) -> float:
    """Return the gap between the inner lips over the distance of the eye corners."""
    points = face.points
    gaps = np.linalg.norm(points[list(LOWER_INNER)] - points[list(UPPER_INNER)], axis=1)
    return float(gaps.mean() / max(np.linalg.norm(points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]), 1e-6))
