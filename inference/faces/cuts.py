"""Detection of cuts: frames that differ so much from the one before that they belong to another shot.

Frames are compared as grey thumbnails of 32 x 32 pixels, by their correlation, which brightness and contrast do not
change. Measured on 31 real clips (2,443 pairs of frames): within a shot it is 0.976 or more; between clips of different
people 0.74 or less in 95 of 100 pairs, in the same room as well. If the thumbnails are shifted to fit, it is 0.93 or
more for a camera that pans by up to a tenth of the frame per frame, and 0.85 or less in 99 of 100 cuts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]

SIDE = 32  # pixels of a thumbnail
SAMPLED_SIDE = 64  # rows and columns of the frame, about, that a thumbnail is averaged from
GREEN = 1  # the channel that is compared, as it is nearest to the brightness
MAX_SHIFT = 4  # pixels of the thumbnail: an eighth of the frame
SAME_ABOVE = 0.95  # correlation without a shift from which nothing has changed
CUT_BELOW = 0.85  # correlation of the best shift below which the frame is of another shot
RETURN_ABOVE = 0.9  # correlation from which the frame continues an earlier shot, as after a flash
FLAT_BELOW = 2.0  # levels, standard deviation: a thumbnail of one colour, such as black
HISTORY_FRAMES = 12  # frames over which a gradual change is measured
MAX_ENDED_SHOTS = 2  # shots that a frame may return to


class FrameChange(Enum):
    """What a frame is compared with the one before: the same view, maybe another, or certainly another."""

    NONE = "none"
    POSSIBLE = "possible"
    CUT = "cut"


@dataclass(frozen=True)
class Thumbnail:
    """A small grey image of a frame.

    levels: (32, 32) float32. deviation: the same minus its mean, divided by its length; None if it is of one colour.
    """

    levels: Array
    deviation: Array | None

    @classmethod
    def of(cls, frame_bgr: Frame) -> Thumbnail:
        """Shrink a frame, (H, W, 3) uint8; of a large one, only every n-th row and column is read."""
        step_y, step_x = (max(side // SAMPLED_SIDE, 1) for side in frame_bgr.shape[:2])
        sampled = np.ascontiguousarray(frame_bgr[::step_y, ::step_x, GREEN])
        levels = np.asarray(cv2.resize(sampled, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)
        deviation = levels - levels.mean()
        length = float(np.sqrt(np.vdot(deviation, deviation)))
        return cls(levels, deviation / length if length >= FLAT_BELOW * SIDE else None)


class CutDetector:
    """Compares each frame with the one before, and numbers the shots from 0."""

    def __init__(self) -> None:
        self.shot = 0  # number of the shot of the last frame
        self.shift = (0.0, 0.0)  # by which the view moved since the frame before, as shares of its width and height
        self._n_shots = 1
        self._history: deque[Thumbnail] = deque(maxlen=HISTORY_FRAMES)  # of this shot, latest last
        self._ended: deque[tuple[int, Thumbnail]] = deque(maxlen=MAX_ENDED_SHOTS)  # numbers and last thumbnails

    def add(self, frame_bgr: Frame) -> FrameChange:
        """Take the next frame, (H, W, 3) uint8 BGR, and return how it differs; a cut begins a shot."""
        thumbnail = Thumbnail.of(frame_bgr)
        change = compare(self._history[-1], thumbnail) if self._history else FrameChange.NONE
        self.shift = (0.0, 0.0)
        if change is FrameChange.POSSIBLE:
            _, (x, y) = match_shifted(self._history[-1], thumbnail)
            self.shift = x / SIDE, y / SIDE
        if change is FrameChange.CUT:
            self._end_shot()
            returned = [shot for shot, last in self._ended if correlate_shifted(last, thumbnail) > RETURN_ABOVE]
            self.shot = returned[0] if returned else self._next_number()
        self._history.append(thumbnail)
        return change

    def begin_shot(self) -> None:
        """Begin a shot with the last frame: the face shows that it is one."""
        thumbnail = self._history.pop()
        self._end_shot()
        self.shot = self._next_number()
        self._history.append(thumbnail)

    def has_drifted(self) -> bool:
        """Return whether the view has become another one within half a second, as in a cross-fade."""
        return compare(self._history[0], self._history[-1]) is FrameChange.CUT

    def _end_shot(self) -> None:
        if self._history:
            self._ended = deque([one for one in self._ended if one[0] != self.shot], MAX_ENDED_SHOTS)
            self._ended.append((self.shot, self._history[-1]))
        self._history.clear()

    def _next_number(self) -> int:
        self._n_shots += 1
        return self._n_shots - 1


def compare(before: Thumbnail, after: Thumbnail) -> FrameChange:
    """Return how a frame differs from an earlier one."""
    if correlate(before, after) >= SAME_ABOVE:
        return FrameChange.NONE
    return FrameChange.CUT if correlate_shifted(before, after) < CUT_BELOW else FrameChange.POSSIBLE


def correlate(one: Thumbnail, other: Thumbnail) -> float:
    """Return the correlation of two thumbnails, -1 to 1; 1 if both are of one colour, 0 if one is."""
    if one.deviation is None or other.deviation is None:
        return float(one.deviation is other.deviation)
    return float(np.vdot(one.deviation, other.deviation))


def correlate_shifted(one: Thumbnail, other: Thumbnail) -> float:
    """Return the highest correlation of the middle of one thumbnail with a part of the other."""
    return match_shifted(one, other)[0]


def match_shifted(one: Thumbnail, other: Thumbnail) -> tuple[float, tuple[int, int]]:
    """Return the same, and the shift of that part, x and y, in pixels of the thumbnails."""
    middle = np.ascontiguousarray(one.levels[MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT])
    is_flat = middle.std() < FLAT_BELOW, other.deviation is None
    if any(is_flat):
        return float(all(is_flat)), (0, 0)
    scores = cv2.matchTemplate(other.levels, middle, cv2.TM_CCOEFF_NORMED)
    scores = np.where(np.abs(scores) <= 1.001, scores, -1.0)  # a part of one colour may give anything
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[y, x]), (int(x) - MAX_SHIFT, int(y) - MAX_SHIFT)
