"""Preprocessing: from frames to face boxes, smoothed, and the crops that Wav2Lip takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.lip_sync.options import Pads, ResizeFilter, SmoothingMode
from inference.media import Clip, Frame
from inference.media.frames import pad_to_even

FACE_SIZE = 96  # pixels; height and width of the faces that Wav2Lip takes
MASKED_FROM = FACE_SIZE // 2  # rows from here down are masked in the first three channels
SMOOTHING_WINDOW = 5  # boxes averaged by smoothing
SMOOTHING_REACH = SMOOTHING_WINDOW // 2  # boxes before and after, in a centred average
JAW, BROWS = slice(0, 17), slice(17, 27)  # indices in the 68-point order
INTERPOLATIONS: dict[ResizeFilter, int] = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
BELOW_CHIN = 0.04  # share of the height from brow to chin: landmarks are on the chin, S3FD's boxes end below it

# Finds the box of the face in a frame; None if there is no face.
FaceLocator = Callable[[Frame], FaceBox | None]


@dataclass(frozen=True)
class FaceFrame:
    """A frame, (H, W, 3) uint8 BGR, and its face box: whole pixels inside the frame, or None."""

    frame: Frame
    box: FaceBox | None


def face_box_of_landmarks(points: npt.NDArray[np.floating]) -> FaceBox:
    """Return a face box framed like those of S3FD, which Wav2Lip was trained on.

    It spans from the brows to below the chin, and the width of the jaw. points: (68, 2).
    """
    left, right = points[JAW, 0].min(), points[JAW, 0].max()
    top, chin = points[BROWS, 1].min(), points[JAW, 1].max()
    return FaceBox(float(left), float(top), float(right), float(chin + BELOW_CHIN * (chin - top)))


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
            box = locate(frame)
            previous = FaceFrame(frame, None if box is None else pad_box(box, pads, frame))
        yield previous


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


def smooth_boxes(face_frames: Iterable[FaceFrame], smoothing: SmoothingMode) -> Iterator[FaceFrame]:
    """Smooth boxes; frames come out a few frames later. A gap without a face ends a run of boxes."""
    if smoothing == "none":
        yield from face_frames
        return
    smoother = CentredSmoother() if smoothing == "centred" else UpstreamSmoother()
    for face_frame in face_frames:
        if face_frame.box is None:
            yield from smoother.finish()
            yield face_frame
        else:
            yield from smoother.add(face_frame.frame, as_row(face_frame.box))
    yield from smoother.finish()


BoxRow = npt.NDArray[np.int64]  # left, top, right, bottom


def as_row(box: FaceBox) -> BoxRow:
    return np.array([box.left, box.top, box.right, box.bottom], np.int64)


class CentredSmoother:
    """Averages a box with the two before and the two after; fewer at the ends, equally many on both sides.

    A box that moves steadily therefore stays on the face; upstream's window leads by two frames.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Frame, BoxRow]] = deque()
        self._before: deque[BoxRow] = deque(maxlen=SMOOTHING_REACH)

    def add(self, frame: Frame, row: BoxRow) -> Iterator[FaceFrame]:
        self._pending.append((frame, row))
        if len(self._pending) > SMOOTHING_REACH:
            yield self._next()

    def finish(self) -> Iterator[FaceFrame]:
        while self._pending:
            yield self._next()
        self._before.clear()

    def _next(self) -> FaceFrame:
        after = [row for _, row in self._pending]
        frame, row = self._pending.popleft()
        reach = min(len(self._before), len(after) - 1, SMOOTHING_REACH)
        window = [*list(self._before)[len(self._before) - reach :], *after[: reach + 1]]
        self._before.append(row)
        return FaceFrame(frame, FaceBox(*np.rint(np.mean(window, axis=0)).astype(int).tolist()))


class UpstreamSmoother:
    """Averages a box with the four after it; at the end of a run, averages already emitted are averaged again.

    Source: Rudrabha/Wav2Lip inference.py get_smoothened_boxes, with its truncation and slices.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._rows: list[BoxRow] = []
        self._last_averaged: list[BoxRow] = []  # the last row emitted, which the end of a run averages again

    def add(self, frame: Frame, row: BoxRow) -> Iterator[FaceFrame]:
        self._frames.append(frame)
        self._rows.append(row)
        if len(self._rows) == SMOOTHING_WINDOW:
            yield self._emit(self._rows)

    def finish(self) -> Iterator[FaceFrame]:
        rows = [*self._last_averaged, *self._rows]
        for i in range(len(self._last_averaged), len(rows)):
            rows[i] = mean_row(rows[len(rows) - SMOOTHING_WINDOW :])
            yield FaceFrame(self._frames[i - len(self._last_averaged)], FaceBox(*rows[i].tolist()))
        self._frames, self._rows, self._last_averaged = [], [], []

    def _emit(self, window: list[BoxRow]) -> FaceFrame:
        frame, row = self._frames.pop(0), mean_row(window)
        self._rows.pop(0)
        self._last_averaged = [row]
        return FaceFrame(frame, FaceBox(*row.tolist()))


def mean_row(window: list[BoxRow]) -> BoxRow:
    return np.asarray(np.mean(window, axis=0), np.int64)


def cut_face(frame: Frame, box: FaceBox) -> Frame:
    """Crop a face and resize it to the network's input: (96, 96, 3) uint8 BGR, bilinear."""
    return cv2.resize(frame[slices_of(box)], (FACE_SIZE, FACE_SIZE)).astype(np.uint8, copy=False)


def stack_faces(faces: list[Frame]) -> npt.NDArray[np.float32]:
    """Stack faces to the input of Wav2Lip: (B, 6, 96, 96) float32, BGR / 255.

    Channels 0..2 have the lower half masked; channels 3..5 are the whole face.
    Source: Rudrabha/Wav2Lip inference.py datagen.
    """
    whole = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32) / 255
    masked = whole.copy()
    masked[:, :, MASKED_FROM:] = 0
    return np.concatenate([masked, whole], axis=1)
