"""Mouths of a video, from which generated mouths get their detail: different ones, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox, Landmarker
from inference.faces.turned_box import cut_turned, patch_to_frame
from inference.lip_sync.mouth_shape import MeasuredMouth, Vector, measure_mouth
from inference.lip_sync.preprocess import FaceFrame
from inference.media import Frame

MAX_MOUTHS = 240
MAX_BYTES = 96 << 20  # of pixels; 240 mouths of faces of 380 x 430 pixels, 100 of twice the size
DENSE_FACES = 50  # faces of which every one is measured; of later ones every second, as neighbours resemble each other
# The part of a face that is kept, in shares of its box: the lower face, and what a warp may reach beyond it.
LEFT, TOP, RIGHT, BOTTOM = -0.1, 0.3, 1.1, 1.15
# Mean absolute difference of two upper faces, 0..1, from which they are different people or views.
MAX_UPPER_DIFFERENCE = 0.06
EXCLUDED = 1.0  # distance of a mouth that must not be used


@dataclass(frozen=True)
class StoredMouth:
    """A mouth of the video. pixels: (h, w, 3) uint8 BGR, upright.

    origin: x and y of their first pixel in the patch of the face box. shot: number of cuts before the frame.
    """

    pixels: Frame
    origin: npt.NDArray[np.float64]
    mouth: MeasuredMouth
    shot: int


class MouthBank:
    """Keeps mouths that differ most: if it is full, one of the two most similar mouths of a shot is dropped.

    The result depends only on the mouths and their order.
    """

    def __init__(self, max_mouths: int = MAX_MOUTHS, max_bytes: int = MAX_BYTES) -> None:
        self.examples: list[StoredMouth] = []
        self.n_bytes = 0
        self._max_mouths, self._max_bytes = max_mouths, max_bytes
        self._gaps = np.zeros((0, 0), np.float32)  # distances of all pairs; infinite between shots
        self._columns: tuple[Vector, ...] | None = None

    def add(self, example: StoredMouth) -> None:
        gaps = np.array([gap_between(example, one) for one in self.examples], np.float32)
        self._gaps = np.pad(self._gaps, ((0, 1), (0, 1)), constant_values=np.inf)
        self._gaps[-1, :-1] = self._gaps[:-1, -1] = gaps
        self.examples.append(example)
        self.n_bytes += example.pixels.nbytes
        self._columns = None
        while len(self.examples) > self._max_mouths or (self.n_bytes > self._max_bytes and len(self.examples) > 1):
            self._drop_similar()

    def distances(self, mouth: MeasuredMouth, shot: int) -> Vector:
        """Return how different each mouth is, (n,): in shape, in eye distances, plus in look, 0..1.

        Mouths of other shots and of other people, or in another light, are `EXCLUDED`.
        """
        if self._columns is None:
            each = [one.mouth for one in self.examples]
            self._columns = tuple(
                np.stack([getattr(one, name) for one in each]) for name in ("shape", "look", "upper")
            ) + (np.array([one.shot for one in self.examples]),)
        shapes, looks, uppers, shots = self._columns
        found = np.linalg.norm(shapes - mouth.shape, axis=1) + np.abs(looks - mouth.look).mean(axis=(1, 2))
        is_other = (shots != shot) | (np.abs(uppers - mouth.upper).mean(axis=(1, 2)) > MAX_UPPER_DIFFERENCE)
        return np.asarray(np.where(is_other, EXCLUDED, found), np.float32)

    def _drop_similar(self) -> None:
        """Drop the later one of the most similar pair."""
        drop = max(np.unravel_index(int(self._gaps.argmin()), self._gaps.shape))
        self._gaps = np.delete(np.delete(self._gaps, drop, axis=0), drop, axis=1)
        self.n_bytes -= self.examples.pop(int(drop)).pixels.nbytes


def gap_between(one: StoredMouth, other: StoredMouth) -> float:
    """Return how different two mouths are; infinite if they are of different shots."""
    if one.shot != other.shot:
        return float(np.inf)
    return float(np.linalg.norm(one.mouth.shape - other.mouth.shape))


def collect_mouths(face_frames: Iterable[FaceFrame], landmarker: Landmarker) -> MouthBank:
    """Return the mouths of a video. Frames without a face, or without landmarks, have none."""
    bank = MouthBank()
    last: Frame | None = None
    n_faces = 0
    for one in face_frames:
        if one.frame is last or one.box is None:  # a repeated frame: the rate was raised
            continue
        last, n_faces = one.frame, n_faces + 1
        if n_faces > DENSE_FACES and n_faces % 2:
            continue
        mouth = measure_mouth(one.frame, one.box, one.angle_rad, landmarker)
        if mouth is not None and (cut := cut_lower_face(one.frame, one.box, one.angle_rad)) is not None:
            bank.add(StoredMouth(*cut, mouth, one.shot))
    return bank


def cut_lower_face(frame: Frame, box: FaceBox, angle_rad: float) -> tuple[Frame, npt.NDArray[np.float64]] | None:
    """Return the lower face, upright, and where its first pixel is in the patch of the box; None outside the frame."""
    low = np.floor(np.array([LEFT * box.width, TOP * box.height]))
    high = np.ceil(np.array([RIGHT * box.width, BOTTOM * box.height]))
    if angle_rad != 0:
        to_frame = patch_to_frame(box, angle_rad)
        width, height = high - low
        x, y = to_frame[:, :2] @ ((low + high - 1) / 2) + to_frame[:, 2]
        left, top = x - (width - 1) / 2, y - (height - 1) / 2
        return cut_turned(frame, FaceBox(left, top, left + width, top + height), angle_rad), low
    corner = np.array([box.left, box.top])
    first = np.maximum(corner + low, 0).astype(int)
    end = np.minimum(corner + high, [frame.shape[1], frame.shape[0]]).astype(int)
    if (end <= first).any():
        return None
    return frame[first[1] : end[1], first[0] : end[0]].copy(), first - corner
