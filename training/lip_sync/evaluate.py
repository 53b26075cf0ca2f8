"""How mouths that a network has drawn go with the voices that they were drawn to, as a landmarker sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from inference.faces import FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.models import Wav2Lip
from training.lip_sync.face_packs import MARGIN, Bytes, Floats
from training.lip_sync.samples import Talking, cut_plain, gap_of

ENLARGED = 3  # faces are shown to the landmarker at so many times their size
STILL = 1e-6  # px: a deviation below it is none


@dataclass(frozen=True)
class Moved:
    """How drawn lips go with true ones: Pearson's correlation, and their deviation over the true one's."""

    correlation: float
    reach: float


def measure(network: Wav2Lip, clips: Sequence[Talking], landmarker: Landmarker) -> Moved | None:
    """Each clip's voice on the next one's face; None where no drawn film shows a face throughout."""
    found = []
    for i, voice in enumerate(clips):
        drawn = look(draw(network, clips[(i + 1) % len(clips)], voice), landmarker)
        if drawn is not None:
            true = voice.gaps[: len(drawn)]
            found.append((correlate(drawn, true), float(drawn.std() / max(true.std(), STILL))))
    if not found:
        return None
    correlation, reach = np.mean(found, axis=0).tolist()
    return Moved(correlation, reach)


def draw(network: Wav2Lip, face: Talking, voice: Talking) -> list[Bytes]:
    """The face, with its margin, saying what the voice says: (120, 120, 3) each."""
    n_frames = min(face.n_frames, voice.n_frames)
    mels = np.stack([voice.sound.window(i) for i in range(n_frames)])
    faces = list(face.faces[:n_frames])
    return [paste(one, patch) for one, patch in zip(faces, draw_film(network, faces, mels), strict=True)]


@torch.no_grad()
def draw_film(network: Wav2Lip, faces: Sequence[Bytes], mels: Floats) -> Bytes:
    """Faces of a film with their margins (120, 120, 3) saying mels (B, 80, 16), as in use: (B, 96, 96, 3)."""
    network.eval()
    shown = SteadyReference().show(stack_faces([cut_plain(face) for face in faces]))
    given = torch.from_numpy(shown).contiguous(memory_format=torch.channels_last)
    return to_patches(network(torch.from_numpy(mels[:, None]), given).float().numpy())


def paste(face: Bytes, patch: Bytes) -> Bytes:
    whole = face.copy()
    whole[MARGIN:-MARGIN, MARGIN:-MARGIN] = patch
    return whole


def look(pictures: Sequence[Bytes], landmarker: Landmarker) -> Floats | None:
    """The gap between the lips in each, px; None where one shows no face."""
    tracker, gaps = FaceTracker(landmarker), []
    for picture in pictures:
        (face,) = tracker.follow([enlarge(picture)])
        if face is None:
            return None
        gaps.append(gap_of((face.points[LIP_POINTS] / ENLARGED).astype(np.float32)))
    return np.stack(gaps)


def enlarge(face: Bytes) -> Bytes:
    return np.asarray(cv2.resize(face, None, fx=ENLARGED, fy=ENLARGED), np.uint8)


def correlate(one: Floats, other: Floats) -> float:
    if one.std() < STILL or other.std() < STILL:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
