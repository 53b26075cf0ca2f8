"""68 face landmarks by dlib's HOG detector and shape predictor; the published weights were trained with them."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.errors import InvalidRequest, WeightsNotFound, WrongWeights
from inference.faces.box import N_LANDMARKS, Detection, Face, FaceBox, FaceRegion
from inference.weights.checkpoint import reject_known_non_weights

Frame = npt.NDArray[np.uint8]

# The detector finds faces from about 80 pixels up; in a frame of twice the size, from 40. Above full HD
# such a face is too small for lip reading, and the search would take seconds.
MAX_UPSAMPLED_PIXELS = 1920 * 1080
FIXED_SCORE = 1.0  # a predictor places its points in any region and does not score whether a face is there

MAX_PREDICTOR_BYTES = 512 << 20  # bytes; five times the largest predictor that dlib publishes
# How dlib serialises a predictor: the version 1, then the mean shape's rows (two for each point) and its
# columns. A number is a byte of sign and length, then its bytes, lowest first; sizes are negated.
VERSION_1 = b"\x01\x01"
SIGN_BIT = 0x80


class DlibLandmarker:
    """dlib's frontal face detector and a 68-point shape predictor.

    Source: SilentSpeak/LipCoordNet lips_coords_extractor.py (grey frames, detection in each frame).
    Deliberately different: the frame keeps its size and shape (upstream stretches it to 600 x 500 first, which
    moves the points by a fraction of a pixel); a frame with fewer faces than wanted is searched once
    more at twice its size; several faces are not an error.
    """

    name = "dlib"
    must_detect = True  # the predictor needs the detector's own box, which landmarks do not give

    def __init__(self, predictor: Path, notice: str | None = None) -> None:
        """Load the detector and the predictor. predictor: a file written by dlib.train_shape_predictor, for 68 points.

        Raises: InvalidRequest if dlib is not installed; WeightsNotFound, WrongWeights.
        """
        self.notice = notice
        self._dlib: Any = import_dlib()
        self._detector = self._dlib.get_frontal_face_detector()
        self._predictor = load_predictor(predictor)

    def detect(
        self,
        frame_bgr: Frame,
        n_wanted: int = 1,
        is_thorough: bool = False,  # noqa: ARG002 (smaller faces are not searched for)
    ) -> list[Detection]:
        grey = to_grey(frame_bgr)
        found = self._detect(grey, 0)
        if len(found) < n_wanted and grey.size <= MAX_UPSAMPLED_PIXELS:
            upsampled = self._detect(grey, 1)
            found = upsampled if len(upsampled) > len(found) else found
        return sorted(found, key=lambda one: -one.score)

    def find_landmarks(self, frame_bgr: Frame, region: FaceRegion) -> Face | None:
        """Return the face in a region; its angle is ignored, since detections are upright.

        None if the region is outside the frame; otherwise there are always points.
        """
        height, width = frame_bgr.shape[:2]
        if box_of_region(region).overlap(FaceBox(0, 0, width, height)) == 0:
            return None
        grey = to_grey(frame_bgr)
        shape = self._predictor(grey, self._rectangle(region))
        points = np.array([(part.x, part.y) for part in shape.parts()], np.float32)
        box = FaceBox(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        return Face(points, box, region, FIXED_SCORE)

    def _detect(self, grey: npt.NDArray[np.uint8], n_doublings: int) -> list[Detection]:
        rectangles, margins, _ = self._detector.run(grey, n_doublings)
        boxes = [FaceBox(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]  # dlib's are inclusive
        return [
            Detection(box, region_of_box(box), 1 / (1 + math.exp(-margin)))
            for box, margin in zip(boxes, margins, strict=True)
        ]

    def _rectangle(self, region: FaceRegion) -> Any:
        box = box_of_region(region)
        left, top = round(box.left), round(box.top)
        size = round(region.size)
        return self._dlib.rectangle(left, top, left + size - 1, top + size - 1)


def to_grey(frame_bgr: Frame) -> npt.NDArray[np.uint8]:
    return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)


def region_of_box(box: FaceBox) -> FaceRegion:
    """Return the detector's square as a region; `box_of_region` inverts it, to a pixel: some boxes are not square."""
    return FaceRegion(*box.centre, box.width, 0.0)


def box_of_region(region: FaceRegion) -> FaceBox:
    half = region.size / 2
    x, y = region.centre_x, region.centre_y
    return FaceBox(x - half, y - half, x + half, y + half)


def import_dlib() -> ModuleType:
    """Import dlib. Raises: InvalidRequest if it is not installed."""
    try:
        import dlib
    except ImportError as err:
        raise InvalidRequest(
            f"landmarks 'dlib' need dlib, which cannot be imported ({err}): pip install dlib-bin, "
            "or choose the landmarks 'mediapipe'"
        ) from err
    module: ModuleType = dlib
    return module


def load_predictor(path: Path) -> Any:
    """Load a shape predictor for 68 points.

    dlib parses its format in C++, so size, kind and number of points are checked first.
    Raises: WeightsNotFound; WrongWeights, whose message identifies the file.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    if path.stat().st_size > MAX_PREDICTOR_BYTES:
        raise WrongWeights(f"{path}: {path.stat().st_size} bytes; a shape predictor has at most {MAX_PREDICTOR_BYTES}")
    with path.open("rb") as file:
        check_header(file.read(512), path)
    try:
        return import_dlib().shape_predictor(str(path))
    except (RuntimeError, MemoryError, ValueError) as err:
        raise WrongWeights(f"{path}: a damaged or cut-off shape predictor ({err})") from err


def check_header(header: bytes, path: Path) -> None:
    """Raise WrongWeights unless the first bytes are those of a predictor of 68 points."""
    reject_known_non_weights(header, path)
    if header.startswith(b"BZh"):
        raise WrongWeights(f"{path}: is still compressed; unpack it first (bunzip2)")
    n_points = count_points(header)
    if n_points is None:
        raise WrongWeights(f"{path}: not a shape predictor of dlib (starts with {header[:8].hex(' ')})")
    if n_points != N_LANDMARKS:
        raise WrongWeights(f"{path}: predicts {n_points} points; expected {N_LANDMARKS}")


def count_points(header: bytes) -> int | None:
    """Return the number of points that a predictor gives; None if the header is not that of a predictor."""
    if not header.startswith(VERSION_1) or len(header) < 3 or not header[2] & SIGN_BIT:
        return None
    n_bytes = header[2] & ~SIGN_BIT
    return int.from_bytes(header[3 : 3 + n_bytes], "little") // 2
