"""Agreement of generated mouths with the speech they were generated for, as measured by a landmarker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from inference.audio import MEL_WINDOW
from inference.audio.mel import N_MELS, SILENCE
from inference.faces import FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.models import Wav2Lip
from training.common.arrays import Bytes, Floats
from training.common.correlation import correlate
from training.common.face_packs import MARGIN
from training.common.lips import landmark_gap
from training.lip_sync.samples import PreparedClip, remove_margin

ENLARGEMENT = 3  # factor by which faces are enlarged for the landmarker
SILENT_STEP = 15  # every so manyth frame is generated in silence
WIDEST_PERCENTILE = 95  # of the gaps in speech
STILL_PX = 1e-6  # deviation of a gap below which the lips count as still


@dataclass(frozen=True)
class MotionScore:
    """How generated lips follow the true ones.

    correlation: Pearson's, of the gaps. amplitude: standard deviation of the gap over that of the true one. rest: mean
    gap in silence over the widest in speech (95th percentile).
    """

    correlation: float
    amplitude: float
    rest: float


def score_motion(network: Wav2Lip, clips: Sequence[PreparedClip], landmarker: Landmarker) -> MotionScore | None:
    """Score each clip's speech on the next clip's face. None if no generated clip shows a face in every frame."""
    scores = []
    for i, speech in enumerate(clips):
        face = clips[(i + 1) % len(clips)]
        gaps = measure_gaps(generate_clip(network, face, speech), landmarker)
        silent = measure_gaps(generate_silence(network, face), landmarker)
        if gaps is None or silent is None:
            continue
        true = speech.gaps[: len(gaps)]
        rest = silent.mean() / max(np.percentile(gaps, WIDEST_PERCENTILE), STILL_PX)
        scores.append((correlate(gaps, true, STILL_PX) or 0.0, gaps.std() / max(true.std(), STILL_PX), rest))
    return MotionScore(*np.mean(scores, axis=0).tolist()) if scores else None


def generate_clip(network: Wav2Lip, face: PreparedClip, speech: PreparedClip) -> list[Bytes]:
    """Generate one clip's face with another's speech: frames (120, 120, 3), with their margins."""
    n_frames = min(face.n_frames, speech.n_frames)
    mels = np.stack([speech.audio.window(i) for i in range(n_frames)])
    faces = list(face.faces[:n_frames])
    return [paste(one, patch) for one, patch in zip(faces, generate_faces(network, faces, mels), strict=True)]


def generate_silence(network: Wav2Lip, face: PreparedClip) -> list[Bytes]:
    """Generate some frames of a clip's face in silence, as `generate_clip`."""
    faces = list(face.faces[::SILENT_STEP])
    mels = np.full((len(faces), N_MELS, MEL_WINDOW), SILENCE, np.float32)
    return [paste(one, patch) for one, patch in zip(faces, generate_faces(network, faces, mels), strict=True)]


@torch.no_grad()
def generate_faces(network: Wav2Lip, faces: Sequence[Bytes], mels: Floats) -> Bytes:
    """Generate the faces of a video as inference does: (T, 96, 96, 3).

    faces: (120, 120, 3), with their margins. mels: (T, 80, 16).
    """
    network.eval()
    inputs = SteadyReference().replace_references(stack_faces([remove_margin(face) for face in faces]))
    tensor = torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last)
    return to_patches(network(torch.from_numpy(mels[:, None]), tensor).float().numpy())


def paste(face: Bytes, patch: Bytes) -> Bytes:
    whole = face.copy()
    whole[MARGIN:-MARGIN, MARGIN:-MARGIN] = patch
    return whole


def measure_gaps(faces: Sequence[Bytes], landmarker: Landmarker) -> Floats | None:
    """Measure the gap between the lips in each image, px; None if one shows no face."""
    tracker, gaps = FaceTracker(landmarker), []
    for image in faces:
        (face,) = tracker.follow([enlarge(image)])
        if face is None:
            return None
        gaps.append(landmark_gap((face.points[LIP_POINTS] / ENLARGEMENT).astype(np.float32)))
    return np.stack(gaps)


def enlarge(face: Bytes) -> Bytes:
    return np.asarray(cv2.resize(face, None, fx=ENLARGEMENT, fy=ENLARGEMENT), np.uint8)
