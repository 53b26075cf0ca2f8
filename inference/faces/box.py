"""Values for faces: boxes, regions, detections and landmarks, in pixels of their frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# 68-point order: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67.
N_LANDMARKS = 68
LIP_POINTS = slice(48, 68)


@dataclass(frozen=True)
class FaceBox:
    """Axis-aligned box; `right` and `bottom` are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlap(self, other: FaceBox) -> float:
        """Return the intersection over union, 0..1."""
        shared = self._shared_area(other)
        return shared / (self.area + other.area - shared) if shared else 0.0

    def nesting(self, other: FaceBox) -> float:
        """Return the intersection over the smaller box, 0..1: 1 if one lies in the other."""
        shared = self._shared_area(other)
        return shared / min(self.area, other.area) if shared else 0.0

    def _shared_area(self, other: FaceBox) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@dataclass(frozen=True)
class FaceRegion:
    """A square to search for landmarks in, rotated by `angle_rad` (clockwise on the screen)."""

    centre_x: float
    centre_y: float
    size: float
    angle_rad: float


@dataclass(frozen=True)
class Detection:
    """A detected face: its box, the region to search for landmarks in, and a score 0..1."""

    box: FaceBox
    region: FaceRegion
    score: float


@dataclass(frozen=True)
class Face:
    """A face with landmarks.

    points: (68, 2) float32, x and y in pixels, 68-point order.
    box: the tight box around all landmarks that were found.
    region: the region to search for the same face in the next frame.
    score: 0..1, the confidence of the landmarker that this is a face.
    yaw_rad: turn of the head to the side, 0 if it faces the camera or the landmarker cannot tell; past about 60 degrees
        the landmarks are guesses. shot: number of cuts before the frame, from the tracker.
    """

    points: npt.NDArray[np.float32]
    box: FaceBox
    region: FaceRegion
    score: float
    yaw_rad: float = 0.0
    shot: int = 0
