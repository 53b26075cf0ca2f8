"""Shape and look of a mouth, comparable between frames of one video, whether real or generated."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox, Landmarker
from inference.faces.box import LIP_POINTS, FaceRegion
from inference.faces.crop import ALIGN_POINTS, MEAN_FACE, fit_similarity
from inference.faces.detect import cut_region
from inference.faces.paste import FADE_FROM, lower_face_mask
from inference.lip_sync.face_group import REGION_OF_BOX
from inference.media import Frame

VIEW_SIDE = 192  # pixels: the input of the face mesh, so that it is not resampled again
VIEW_REGION = FaceRegion(VIEW_SIDE / 2, VIEW_SIDE / 2, VIEW_SIDE, 0.0)
STABLE_POINTS = slice(17, 48)  # brows, nose and eyes, which do not move with speech
STABLE_MEAN_FACE = MEAN_FACE[: STABLE_POINTS.stop - ALIGN_POINTS.start]
EYE_DISTANCE = float(np.linalg.norm(MEAN_FACE[45 - ALIGN_POINTS.start] - MEAN_FACE[36 - ALIGN_POINTS.start]))
UPPER_INNER, LOWER_INNER = [61, 62, 63], [67, 66, 65]  # inner lips, in vertical pairs
N_LIPS = LIP_POINTS.stop - LIP_POINTS.start
# Against the position of a lip point: the opening decides what is visible of the teeth, the pose matters less.
OPENING_WEIGHT, POSE_WEIGHT = 5.0, 0.5
ALIGNED_SIDE = 64  # pixels of the aligned face that is compared
ALIGN_SCALE = ALIGNED_SIDE / 256  # of the square that `MEAN_FACE` is in
ALIGNED_SIGMA = 1.2  # pixels; a generated mouth is soft, so that only coarse structure is compared
MOUTH_PART = slice(36, 54, 2), slice(12, 52, 2)  # rows and columns of the aligned face
UPPER_PART = slice(8, 34, 2), slice(8, 56, 2)

Points = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MeasuredMouth:
    """A mouth in the upright patch of its face box.

    points: (68, 2) landmarks, pixels of the patch. shape: lips, opening and pose in eye distances, aligned to the mean
    face. look: (n, 3) BGR of the mouth's surroundings, 0..1, minus their mean. upper: BGR of the upper face, 0..1.
    """

    points: Points
    shape: Vector
    look: Vector
    upper: Vector


def measure_mouth(
    frame: Frame, box: FaceBox, angle_rad: float, landmarker: Landmarker, patch: Frame | None = None
) -> MeasuredMouth | None:
    """Measure the mouth of a frame, or of a generated face as if it were blended into it; None without landmarks.

    box: whole pixels, turned by `angle_rad`. patch: (h, w, 3) uint8 BGR, generated for the whole box.
    """
    middle = (box.left + (box.width - 1) / 2, box.top + (box.height - 1) / 2)
    region = FaceRegion(*middle, REGION_OF_BOX * max(box.width, box.height), angle_rad)
    view = cut_region(frame, region, VIEW_SIDE, cv2.BORDER_REPLICATE)
    to_box = region.size / VIEW_SIDE
    if patch is not None:
        view = blend_into_view(view, patch, box.width / to_box, box.height / to_box)
    face = landmarker.find_landmarks(view, VIEW_REGION)
    if face is None:
        return None
    found = face.points.astype(np.float64)
    points = (found - VIEW_SIDE / 2) * to_box + np.array([box.width - 1, box.height - 1]) / 2
    to_mean = fit_similarity(found[STABLE_POINTS], STABLE_MEAN_FACE)
    aligned = align_face(view, to_mean)
    mouth = aligned[MOUTH_PART].reshape(-1, 3)
    return MeasuredMouth(
        points,
        shape_of(found @ to_mean[:, :2].T + to_mean[:, 2]),
        mouth - mouth.mean(axis=0),
        aligned[UPPER_PART].reshape(-1, 3),
    )


def blend_into_view(view: Frame, patch: Frame, width: float, height: float) -> Frame:
    """Return the view with the lower face of a patch blended into its middle, width x height pixels large."""
    rows, columns = patch.shape[:2]
    scale_x, scale_y = width / columns, height / rows
    half = VIEW_SIDE / 2
    top = max(int(half - (0.5 - FADE_FROM) * height), 0)  # above, the weight is 0
    to_view = np.array(
        [[scale_x, 0, half - scale_x * (columns - 1) / 2], [0, scale_y, half - top - scale_y * (rows - 1) / 2]]
    )
    size = (VIEW_SIDE, VIEW_SIDE - top)
    pasted = cv2.warpAffine(patch, to_view, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    weight = cv2.warpAffine(lower_face_mask(rows, columns), to_view, size)[..., None]
    blended = view.copy()
    blended[top:] = np.rint(view[top:] + (pasted - view[top:]) * weight)
    return blended


def align_face(view: Frame, to_mean: Points) -> Vector:
    """Return the face aligned by its upper part: (64, 64, 3) float32, 0..1, without fine detail."""
    aligned = cv2.warpAffine(view, to_mean * ALIGN_SCALE, (ALIGNED_SIDE, ALIGNED_SIDE), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(aligned.astype(np.float32) / 255, (0, 0), ALIGNED_SIGMA), np.float32)


def shape_of(aligned: Points) -> Vector:
    """Return what is compared of aligned landmarks (68, 2), scaled so that a lip point's distance counts once."""
    in_eyes = aligned / EYE_DISTANCE
    opening = (in_eyes[LOWER_INNER, 1] - in_eyes[UPPER_INNER, 1]) * OPENING_WEIGHT
    parts = in_eyes[LIP_POINTS].ravel(), opening, in_eyes[STABLE_POINTS].ravel() * POSE_WEIGHT
    return np.asarray(np.concatenate(parts) / np.sqrt(N_LIPS), np.float32)
