"""From frames to what Wav2Lip takes: boxes of faces, smoothed, and the crops in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.lip_sync.options import Pads, Shrinking, Smoothing
from inference.media import Clip, Frame
from inference.media.frames import make_even

SIDE = 96  # px, of the faces that Wav2Lip takes
MASKED_FROM = SIDE // 2  # the rows below are hidden in the first three channels
T = 5  # boxes that are averaged
REACH = T // 2
JAW, BROWS = slice(0, 17), slice(17, 27)  # of the 68 points
INTERPOLATIONS: dict[Shrinking, int] = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
BELOW_CHIN = 0.04  # of the height from brow to chin: landmarks lie on the chin, S3FD's boxes end below it

# Finds the box of the face in a frame; None where it shows none.
Locate = Callable[[Frame], FaceBox | None]


@dataclass(frozen=True)
class Shot:
    """A frame, (H, W, 3) uint8 BGR, and the face's box in it: whole pixels inside the frame, or None."""

    frame: Frame
    box: FaceBox | None


def box_of_landmarks(points: npt.NDArray[np.floating]) -> FaceBox:
    """A box framed as S3FD's are, which Wav2Lip was trained on: from the brows to below the chin, as wide as the jaw.

    points: (68, 2).
    """
    left, right = points[JAW, 0].min(), points[JAW, 0].max()
    top, chin = points[BROWS, 1].min(), points[JAW, 1].max()
    return FaceBox(float(left), float(top), float(right), float(chin + BELOW_CHIN * (chin - top)))


def shrink(clips: Iterable[Clip], factor: int, how: Shrinking = "area") -> Iterator[Frame]:
    """The frames, their sides divided by `factor`, all of the first one's size and of even sides.

    An odd side gets its last row or column twice: H.264 stores colours for 2 x 2 pixels.
    """
    size: tuple[int, int] | None = None
    for clip in clips:
        for frame in clip.frames:
            if factor > 1:
                smaller = (max(frame.shape[1] // factor, 1), max(frame.shape[0] // factor, 1))
                frame = resize(frame, smaller, INTERPOLATIONS[how])  # noqa: PLW2901
            size = size or (frame.shape[1], frame.shape[0])
            if size != (frame.shape[1], frame.shape[0]):
                frame = resize(frame, size)  # noqa: PLW2901
            yield make_even(frame)


def resize(frame: Frame, size: tuple[int, int], interpolation: int = cv2.INTER_AREA) -> Frame:
    return np.asarray(cv2.resize(frame, size, interpolation=interpolation), np.uint8)


def find_boxes(frames: Iterable[Frame], locate: Locate, pads: Pads) -> Iterator[Shot]:
    """Each frame with its face's padded box."""
    last: Shot | None = None
    for frame in frames:
        if last is None or frame is not last.frame:  # else shown again: the rate was raised
            box = locate(frame)
            last = Shot(frame, None if box is None else pad(box, pads, frame))
        yield last


def pad(box: FaceBox, pads: Pads, frame: Frame) -> FaceBox | None:
    """Whole pixels, inside the frame; None where nothing is left. Source: upstream's face_detect."""
    height, width = frame.shape[:2]
    padded = FaceBox(
        max(int(box.left) - pads.left, 0),
        max(int(box.top) - pads.top, 0),
        min(int(box.right) + pads.right, width),
        min(int(box.bottom) + pads.bottom, height),
    )
    return padded if padded.width > 0 and padded.height > 0 else None


def smooth_boxes(shots: Iterable[Shot], smoothing: Smoothing) -> Iterator[Shot]:
    """The same frames with steadier boxes, a few frames later. A gap without a face ends a run of boxes."""
    if smoothing == "none":
        yield from shots
        return
    smoother = CentredSmoother() if smoothing == "centred" else UpstreamSmoother()
    for shot in shots:
        if shot.box is None:
            yield from smoother.finish()
            yield shot
        else:
            yield from smoother.add(shot.frame, as_row(shot.box))
    yield from smoother.finish()


Row = npt.NDArray[np.int64]  # left, top, right, bottom


def as_row(box: FaceBox) -> Row:
    return np.array([box.left, box.top, box.right, box.bottom], np.int64)


class CentredSmoother:
    """The mean of a box, the two before and the two after; fewer at the ends, alike on both sides.

    So a box that moves steadily stays where the face is, where upstream's window leads by two frames.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Frame, Row]] = deque()
        self._before: deque[Row] = deque(maxlen=REACH)

    def add(self, frame: Frame, row: Row) -> Iterator[Shot]:
        self._waiting.append((frame, row))
        if len(self._waiting) > REACH:
            yield self._next()

    def finish(self) -> Iterator[Shot]:
        while self._waiting:
            yield self._next()
        self._before.clear()

    def _next(self) -> Shot:
        after = [row for _, row in self._waiting]
        frame, row = self._waiting.popleft()
        reach = min(len(self._before), len(after) - 1, REACH)
        window = [*list(self._before)[len(self._before) - reach :], *after[: reach + 1]]
        self._before.append(row)
        return Shot(frame, FaceBox(*np.rint(np.mean(window, axis=0)).astype(int).tolist()))


class UpstreamSmoother:
    """The mean of a box and the four after it; the last ones average what was averaged already.

    Source: Rudrabha/Wav2Lip inference.py get_smoothened_boxes, with its truncation and slices.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._rows: list[Row] = []
        self._last: list[Row] = []  # the row given out last, which the end of a run looks back to

    def add(self, frame: Frame, row: Row) -> Iterator[Shot]:
        self._frames.append(frame)
        self._rows.append(row)
        if len(self._rows) == T:
            yield self._give(self._rows)

    def finish(self) -> Iterator[Shot]:
        rows = [*self._last, *self._rows]
        for i in range(len(self._last), len(rows)):
            rows[i] = mean(rows[len(rows) - T :])
            yield Shot(self._frames[i - len(self._last)], FaceBox(*rows[i].tolist()))
        self._frames, self._rows, self._last = [], [], []

    def _give(self, window: list[Row]) -> Shot:
        frame, row = self._frames.pop(0), mean(window)
        self._rows.pop(0)
        self._last = [row]
        return Shot(frame, FaceBox(*row.tolist()))


def mean(window: list[Row]) -> Row:
    return np.asarray(np.mean(window, axis=0), np.int64)


def cut_face(frame: Frame, box: FaceBox) -> Frame:
    """The face at the network's size: (96, 96, 3) uint8 BGR, bilinear."""
    return cv2.resize(frame[slices_of(box)], (SIDE, SIDE)).astype(np.uint8, copy=False)


def stack_faces(faces: list[Frame]) -> npt.NDArray[np.float32]:
    """What Wav2Lip takes of faces: (B, 6, 96, 96) float32, BGR / 255, the lower half hidden in channels 0..2.

    Source: Rudrabha/Wav2Lip inference.py datagen.
    """
    whole = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32) / 255
    masked = whole.copy()
    masked[:, :, MASKED_FROM:] = 0
    return np.concatenate([masked, whole], axis=1)
