"""Preprocessing: from frames to face boxes, smoothed, and the crops that Wav2Lip takes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.faces.turned_box import cut_turned, rotate
from inference.lip_sync.locate import FaceLocator, LocatedFace
from inference.lip_sync.options import Pads, ResizeFilter, SmoothingMode
from inference.media import Clip, Frame
from inference.media.frames import pad_to_even

FACE_SIZE = 96  # pixels; height and width of the faces that Wav2Lip takes
MASKED_FROM = FACE_SIZE // 2  # rows from here down are masked in the first three channels
SMOOTHING_WINDOW = 5  # boxes averaged by smoothing
SMOOTHING_REACH = SMOOTHING_WINDOW // 2  # boxes before and after, in a centred average
INTERPOLATIONS: dict[ResizeFilter, int] = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
MAX_TURN_WITHIN_RUN_RAD = math.radians(25)  # between two frames; smoothing ends at a larger one


@dataclass(frozen=True)
class FaceFrame:
    """A frame, (H, W, 3) uint8 BGR, and the box of the face to sync, or None.

    box: whole pixels inside the frame; if `angle_rad` is not 0, whole pixels turned by it about the box's centre, and
    parts may be outside the frame. shot: number of cuts before the frame. is_passed_on: whether there is no box though
    there is a face: it cannot be synced. is_outside: whether the frame is in no segment, so that it passes unchanged.
    """

    frame: Frame
    box: FaceBox | None
    angle_rad: float = 0.0
    shot: int = 0
    is_passed_on: bool = False
    is_outside: bool = False


def downscale_frames(clips: Iterable[Clip], factor: int, resize_filter: ResizeFilter = "area") -> Iterator[Frame]:
    """Downscale frames by `factor`, to the size of the first one, with even sides.

    The last row or column is repeated if a side is odd: H.264 stores colours for 2 x 2 pixels.
    """
    size: tuple[int, int] | None = None
    for clip in clips:
        for frame in clip.frames:
            if factor > 1:
                new_size = (max(frame.shape[1] // factor, 1), max(frame.shape[0] // factor, 1))
                frame = resize(frame, new_size, INTERPOLATIONS[resize_filter])  # noqa: PLW2901
            size = size or (frame.shape[1], frame.shape[0])
            if size != (frame.shape[1], frame.shape[0]):
                frame = resize(frame, size)  # noqa: PLW2901
            yield pad_to_even(frame)


def resize(frame: Frame, size: tuple[int, int], interpolation: int = cv2.INTER_AREA) -> Frame:
    return np.asarray(cv2.resize(frame, size, interpolation=interpolation), np.uint8)


def find_boxes(frames: Iterable[Frame], locate: FaceLocator, pads: Pads) -> Iterator[FaceFrame]:
    """Yield each frame with the padded box of its face."""
    previous: FaceFrame | None = None
    for frame in frames:
        if previous is None or frame is not previous.frame:  # else a repeated frame: the rate was raised
            previous = pad_located(locate(frame), pads, frame)
        yield previous


def pad_located(located: LocatedFace | None, pads: Pads, frame: Frame) -> FaceFrame:
    """Return the frame with the padded box; without one if there is no face that can be synced."""
    if located is None:
        return FaceFrame(frame, None)
    if not located.is_usable:
        return FaceFrame(frame, None, shot=located.shot, is_passed_on=True)
    if located.angle_rad == 0:
        return FaceFrame(frame, pad_box(located.box, pads, frame), shot=located.shot)
    box = pad_turned_box(located.box, located.angle_rad, pads)
    return FaceFrame(frame, box, located.angle_rad, located.shot)


def pad_box(box: FaceBox, pads: Pads, frame: Frame) -> FaceBox | None:
    """Pad a box to whole pixels inside the frame; None if nothing is left. Source: upstream's face_detect."""
    height, width = frame.shape[:2]
    padded = FaceBox(
        max(int(box.left) - pads.left, 0),
        max(int(box.top) - pads.top, 0),
        min(int(box.right) + pads.right, width),
        min(int(box.bottom) + pads.bottom, height),
    )
    return padded if padded.width > 0 and padded.height > 0 else None


def pad_turned_box(box: FaceBox, angle_rad: float, pads: Pads) -> FaceBox | None:
    """Pad a turned box along its own sides, to whole pixels; None if nothing is left."""
    width, height = round(box.width) + pads.left + pads.right, round(box.height) + pads.top + pads.bottom
    if width <= 0 or height <= 0:
        return None
    shift = rotate(np.array([(pads.right - pads.left) / 2, (pads.bottom - pads.top) / 2]), angle_rad)
    x, y = (np.array(box.centre) + shift).tolist()
    left, top = round(x - width / 2), round(y - height / 2)
    return FaceBox(left, top, left + width, top + height)


def smooth_boxes(face_frames: Iterable[FaceFrame], smoothing: SmoothingMode) -> Iterator[FaceFrame]:
    """Smooth boxes; frames come out a few frames later. A cut, or a gap without a face, ends a run of boxes."""
    if smoothing == "none":
        yield from face_frames
        return
    smoother = CentredSmoother() if smoothing == "centred" else UpstreamSmoother()
    last: FaceFrame | None = None
    for face_frame in face_frames:
        if last is not None and not continues_run(last, face_frame):
            yield from smoother.finish()
        last = face_frame
        if face_frame.box is None:
            yield face_frame
        else:
            yield from smoother.add(face_frame, as_row(face_frame.box))
    yield from smoother.finish()


def continues_run(last: FaceFrame, face_frame: FaceFrame) -> bool:
    """Return whether the box of a frame may be averaged with that of the frame before."""
    if last.box is None or face_frame.box is None or last.shot != face_frame.shot:
        return False
    if last.angle_rad == 0 or face_frame.angle_rad == 0:
        return last.angle_rad == face_frame.angle_rad
    return abs(angle_between(last.angle_rad, face_frame.angle_rad)) < MAX_TURN_WITHIN_RUN_RAD


def angle_between(from_rad: float, to_rad: float) -> float:
    """Return the smaller of the two angles between two directions, -pi to pi."""
    return math.remainder(to_rad - from_rad, math.tau)


BoxRow = npt.NDArray[np.int64]  # left, top, right, bottom


def as_row(box: FaceBox) -> BoxRow:
    return np.array([box.left, box.top, box.right, box.bottom], np.int64)


class CentredSmoother:
    """Averages a box with the two before and the two after; fewer at the ends, equally many on both sides.

    A box that moves steadily therefore stays on the face; upstream's window leads by two frames. Angles are averaged
    alike.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[FaceFrame, BoxRow]] = deque()
        self._before: deque[tuple[FaceFrame, BoxRow]] = deque(maxlen=SMOOTHING_REACH)

    def add(self, face_frame: FaceFrame, row: BoxRow) -> Iterator[FaceFrame]:
        self._pending.append((face_frame, row))
        if len(self._pending) > SMOOTHING_REACH:
            yield self._next()

    def finish(self) -> Iterator[FaceFrame]:
        while self._pending:
            yield self._next()
        self._before.clear()

    def _next(self) -> FaceFrame:
        after = list(self._pending)
        face_frame, row = self._pending.popleft()
        reach = min(len(self._before), len(after) - 1, SMOOTHING_REACH)
        window = [*list(self._before)[len(self._before) - reach :], *after[: reach + 1]]
        self._before.append((face_frame, row))
        mean = np.rint(np.mean([one for _, one in window], axis=0)).astype(int)
        angle_rad = mean_angle([one.angle_rad for one, _ in window])
        return replace(face_frame, box=FaceBox(*mean.tolist()), angle_rad=angle_rad)


def mean_angle(angles_rad: list[float]) -> float:
    """Return the mean of angles that are near to one another; 0 if all are."""
    first = angles_rad[0]
    return first + sum(angle_between(first, one) for one in angles_rad) / len(angles_rad)


class UpstreamSmoother:
    """Averages a box with the four after it; at the end of a run, averages already emitted are averaged again.

    Source: Rudrabha/Wav2Lip inference.py get_smoothened_boxes, with its truncation and slices.
    """

    def __init__(self) -> None:
        self._frames: list[FaceFrame] = []
        self._rows: list[BoxRow] = []
        self._last_averaged: list[BoxRow] = []  # the last row emitted, which the end of a run averages again

    def add(self, face_frame: FaceFrame, row: BoxRow) -> Iterator[FaceFrame]:
        self._frames.append(face_frame)
        self._rows.append(row)
        if len(self._rows) == SMOOTHING_WINDOW:
            yield self._emit(self._rows)

    def finish(self) -> Iterator[FaceFrame]:
        rows = [*self._last_averaged, *self._rows]
        for i in range(len(self._last_averaged), len(rows)):
            rows[i] = mean_row(rows[len(rows) - SMOOTHING_WINDOW :])
            yield replace(self._frames[i - len(self._last_averaged)], box=FaceBox(*rows[i].tolist()))
        self._frames, self._rows, self._last_averaged = [], [], []

    def _emit(self, window: list[BoxRow]) -> FaceFrame:
        face_frame, row = self._frames.pop(0), mean_row(window)
        self._rows.pop(0)
        self._last_averaged = [row]
        return replace(face_frame, box=FaceBox(*row.tolist()))


def mean_row(window: list[BoxRow]) -> BoxRow:
    return np.asarray(np.mean(window, axis=0), np.int64)


def cut_face(frame: Frame, box: FaceBox, angle_rad: float = 0.0) -> Frame:
    """Crop a face, upright, and resize it to the network's input: (96, 96, 3) uint8 BGR, bilinear."""
    face = frame[slices_of(box)] if angle_rad == 0 else cut_turned(frame, box, angle_rad)
    return cv2.resize(face, (FACE_SIZE, FACE_SIZE)).astype(np.uint8, copy=False)


def stack_faces(faces: list[Frame]) -> npt.NDArray[np.float32]:
    """Stack faces to the input of Wav2Lip: (B, 6, 96, 96) float32, BGR / 255.

    Channels 0..2 have the lower half masked; channels 3..5 are the whole face.
    Source: Rudrabha/Wav2Lip inference.py datagen.
    """
    whole = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32) / 255
    masked = whole.copy()
    masked[:, :, MASKED_FROM:] = 0
    return np.concatenate([masked, whole], axis=1)
