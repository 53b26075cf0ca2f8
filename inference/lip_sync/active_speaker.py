"""Which face of a video is synced, if there are several: the option of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from inference.errors import InvalidRequest

MAX_BOXES = 250_000  # frames: over two hours at 30 a second
MAX_PIXEL = 100_000  # of a coordinate
Point = tuple[float, float]
Corners = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class ActiveSpeaker:
    """The face to sync, in one of three ways. Pixels are those of the input video, before `resize_factor`.

    mode: "auto", the face whose mouth moves with the audio of the video. frame, point: the face at that x and y in that
    frame, counted from 0 at the frame rate of the video. boxes: left, top, right, bottom of the face in each frame of
    the video, None for frames that pass unchanged.
    Raises: InvalidRequest if a value is impossible, or several ways are mixed.
    Source: sync.so/docs/developer-guides/speaker-selection.
    """

    mode: Literal["auto"] | None = None
    frame: int | None = None
    point: Point | None = None
    boxes: tuple[Corners | None, ...] | None = None

    def __post_init__(self) -> None:
        given = [self.mode is not None, self.frame is not None or self.point is not None, self.boxes is not None]
        if given.count(True) != 1:
            raise InvalidRequest('active_speaker: expected either mode "auto", or frame and point, or boxes')
        if self.mode not in (None, "auto"):
            raise InvalidRequest(f'active_speaker: mode {self.mode!r}; expected "auto"')
        if given[1]:
            self._check_point()
        if self.boxes is not None:
            self._check_boxes(self.boxes)

    @property
    def is_auto(self) -> bool:
        return self.mode == "auto"

    def _check_point(self) -> None:
        if self.frame is None or self.point is None:
            raise InvalidRequest("active_speaker: frame and point go together")
        if type(self.frame) is not int or self.frame < 0:
            raise InvalidRequest(f"active_speaker: frame {self.frame!r}; expected a number from 0 up")
        if len(self.point) != 2 or not all(is_pixel(value) for value in self.point):
            raise InvalidRequest(f"active_speaker: point {list(self.point)}; expected x and y in pixels from 0 up")

    @staticmethod
    def _check_boxes(boxes: tuple[Corners | None, ...]) -> None:
        if not 0 < len(boxes) <= MAX_BOXES:
            raise InvalidRequest(f"active_speaker: {len(boxes)} boxes; expected 1 to {MAX_BOXES}")
        for i, box in enumerate(boxes):
            if box is not None and not is_box(box):
                raise InvalidRequest(
                    f"active_speaker: box {i} is {list(box)}; expected x1, y1, x2, y2 in pixels, x1 < x2 and y1 < y2"
                )
        if all(box is None for box in boxes):
            raise InvalidRequest(f"active_speaker: all {len(boxes)} boxes are null; expected a face in some frame")


def is_pixel(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= MAX_PIXEL
    )


def is_box(box: Corners) -> bool:
    """Return whether these are the corners of a box; they may be outside of the frame."""
    if len(box) != 4 or not all(isinstance(one, int | float) and abs(one) <= MAX_PIXEL for one in box):
        return False
    return box[0] < box[2] and box[1] < box[3]
