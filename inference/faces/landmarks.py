"""68 face landmarks: the interface, and its implementation by MediaPipe's face mesh."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import Detection, Face, FaceBox, FaceRegion
from inference.faces.detect import FaceDetector, Network, cut_region, region_to_frame, rotated_square

Frame = npt.NDArray[np.uint8]


class Landmarker(Protocol):
    """Finds faces in a frame and their 68 landmarks. Keeps no state between frames.

    must_detect: each frame needs a detection of its own; the landmarks of one frame do not locate the face well
        enough in the next.
    notice: about its licence; None if it has no restrictions.
    """

    name: str
    must_detect: bool
    notice: str | None

    def detect(self, frame_bgr: Frame, n_wanted: int = 1, is_thorough: bool = False) -> list[Detection]:
        """Detect faces in a (H, W, 3) uint8 BGR frame, best first; search further for fewer than `n_wanted`.

        is_thorough: if there are none, search for small ones, too, which takes long.
        """

    def find_landmarks(self, frame_bgr: Frame, region: FaceRegion) -> Face | None:
        """Find the landmarks of the face in a region of the frame; None if there is none."""


MESH_SIZE = 192
N_MESH_POINTS = 468
MIN_PRESENCE = 0.5
MESH_EYE_CORNERS = (33, 263)  # outer corners: the person's right eye, left eye
MESH_CHEEKS = (234, 454)  # sides of the face: the person's right, left
# The mesh point for each of the 68 points.
MESH_TO_68 = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]  # jaw
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # eyes
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]  # outer lips
    + [78, 82, 13, 312, 308, 317, 14, 87]  # inner lips
)


class MediaPipeLandmarker:
    """MediaPipe's face detector and face mesh.

    Source: MediaPipe 0.10.21 solutions.face_mesh (static_image_mode False, refine_landmarks False).
    """

    name = "mediapipe"
    must_detect = False
    notice: str | None = None

    def __init__(self, detector: Network, mesh: Network) -> None:
        """Take the networks. detector: [1,128,128,3] -> regressors, scores; mesh: [1,192,192,3] -> points, presence."""
        self._detector = FaceDetector(detector)
        self._mesh = mesh

    def detect(self, frame_bgr: Frame, n_wanted: int = 1, is_thorough: bool = False) -> list[Detection]:
        return self._detector.detect(frame_bgr, n_wanted, is_thorough)

    def find_landmarks(self, frame_bgr: Frame, region: FaceRegion) -> Face | None:
        square = cut_region(frame_bgr, region, MESH_SIZE, cv2.BORDER_REPLICATE)
        # In this order a fifth of the time of a reversed view that is converted and divided.
        rgb = cv2.cvtColor(square, cv2.COLOR_BGR2RGB)[None]
        raw_points, logit = self._mesh(np.divide(rgb, np.float32(255), dtype=np.float32))
        presence = 1 / (1 + math.exp(-float(np.clip(logit.ravel()[0], -100, 100))))
        if presence < MIN_PRESENCE:
            return None
        to_frame = region_to_frame(region, MESH_SIZE)
        mesh = raw_points.reshape(N_MESH_POINTS, 3).astype(np.float64)
        points = mesh[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]
        box = FaceBox(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        corner_from, corner_to = points[list(MESH_EYE_CORNERS)]
        next_region = rotated_square(box, corner_from, corner_to)
        return Face(points[MESH_TO_68].astype(np.float32), box, next_region, presence, yaw_of_mesh(mesh))


def yaw_of_mesh(mesh: npt.NDArray[np.float64]) -> float:
    """Return the turn of a head to the side, in radians. mesh: (468, 3), whose depth has the unit of x and y."""
    across = mesh[MESH_CHEEKS[1]] - mesh[MESH_CHEEKS[0]]
    return math.atan2(float(across[2]), math.hypot(float(across[0]), float(across[1])))
