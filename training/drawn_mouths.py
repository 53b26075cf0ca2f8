"""Mouths that a network under training has drawn, and where a landmarker finds their lips.

A judge that knows filmed faces alone comes to be fooled: it finds lips parted in what nobody else does. So what is
drawn is looked at by the landmarker that a user's video is looked at by, and the judge goes on learning from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from inference.faces import FaceRegion, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.models import Wav2Lip
from training.face_changes import change_look, cut, draw_place, mirror, move_points
from training.talking import MARGIN, Bytes, Floats
from training.talking_samples import Talking, cut_plain

ENLARGED = 3  # faces are shown to the landmarker at so many times their size


@dataclass(frozen=True)
class Mouth:
    """A drawn face with its margin, (120, 120, 3) BGR, and its lips, (20, 2) px of the inner 96."""

    face: Bytes
    lips: Floats


class DrawnMouths:
    """The last ones drawn."""

    def __init__(self, landmarker: Landmarker, clips: Sequence[Talking], n_kept: int) -> None:
        self._landmarker = landmarker
        self._places = [(clip, region) for clip in clips if (region := find_region(clip, landmarker))]
        self._n_kept = n_kept
        self._mouths: list[Mouth] = []
        self._n_seen = 0

    def __len__(self) -> int:
        return len(self._mouths)

    def add(self, network: Wav2Lip, n_wanted: int, rng: np.random.Generator) -> None:
        """Have so many drawn, each of a clip's faces with the sound of another frame; those that show none are left."""
        if not self._places:
            return
        drawn = [self._places[int(rng.integers(len(self._places)))] for _ in range(n_wanted)]
        faces, shown = ([clip.faces[int(rng.integers(clip.n_frames))] for clip, _ in drawn] for _ in range(2))
        mels = np.stack([clip.sound.draw(int(rng.integers(clip.n_frames)), rng) for clip, _ in drawn])
        for face, patch, (_, region) in zip(faces, draw_beside(network, faces, shown, mels), drawn, strict=True):
            whole = paste(face, patch)
            lips = find_lips(whole, region, self._landmarker)
            if lips is not None:
                self._keep(Mouth(whole, lips))

    def _keep(self, mouth: Mouth) -> None:
        """In the place of the oldest one."""
        if len(self._mouths) < self._n_kept:
            self._mouths.append(mouth)
        else:
            self._mouths[self._n_seen % self._n_kept] = mouth
        self._n_seen += 1

    def draw_batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Faces (B, 3, 96, 96) of 0..1 and lips (B, 20, 2) px, changed as filmed ones are."""
        rows = [change(self._mouths[int(rng.integers(len(self)))], rng) for _ in range(size)]
        faces, lips = (list(column) for column in zip(*rows, strict=True))
        return torch.from_numpy(np.ascontiguousarray(stack_faces(faces)[:, 3:])), torch.from_numpy(np.stack(lips))


def change(mouth: Mouth, rng: np.random.Generator) -> tuple[Bytes, Floats]:
    place = draw_place(rng)
    faces, lips = [cut(mouth.face, place)], move_points(mouth.lips, place)
    if rng.random() < 0.5:
        faces, lips = mirror(faces, lips)
    return change_look(faces, rng)[0], lips


def draw_film(network: Wav2Lip, faces: Sequence[Bytes], mels: Floats) -> Bytes:
    """Faces of a film with their margins (120, 120, 3) saying mels (B, 80, 16), as in use: (B, 96, 96, 3)."""
    return draw_stacked(network, SteadyReference().show(stack_plain(faces)), mels)


def draw_beside(network: Wav2Lip, faces: Sequence[Bytes], shown: Sequence[Bytes], mels: Floats) -> Bytes:
    """The same of faces that each have another beside them that is shown whole."""
    stacked = stack_plain(faces)
    stacked[:, 3:] = stack_plain(shown)[:, 3:]
    return draw_stacked(network, stacked, mels)


def stack_plain(faces: Sequence[Bytes]) -> Floats:
    return stack_faces([cut_plain(face) for face in faces])


@torch.no_grad()
def draw_stacked(network: Wav2Lip, stacked: Floats, mels: Floats) -> Bytes:
    network.eval()
    given = torch.from_numpy(stacked).contiguous(memory_format=torch.channels_last)
    return to_patches(network(torch.from_numpy(mels[:, None]), given).float().numpy())


def paste(face: Bytes, patch: Bytes) -> Bytes:
    whole = face.copy()
    whole[MARGIN:-MARGIN, MARGIN:-MARGIN] = patch
    return whole


def enlarge(face: Bytes) -> Bytes:
    return np.asarray(cv2.resize(face, None, fx=ENLARGED, fy=ENLARGED), np.uint8)


def find_region(clip: Talking, landmarker: Landmarker) -> FaceRegion | None:
    """Where to look for the face in any of a steadied clip's enlarged frames."""
    middle = enlarge(clip.faces[clip.n_frames // 2])
    found = [landmarker.find_landmarks(middle, one.region) for one in landmarker.detect(middle)]
    return next((face.region for face in found if face is not None), None)


def find_lips(face: Bytes, region: FaceRegion, landmarker: Landmarker) -> Floats | None:
    """(20, 2) px of the inner 96; None where there is no face."""
    found = landmarker.find_landmarks(enlarge(face), region)
    return None if found is None else (found.points[LIP_POINTS] / ENLARGED - MARGIN).astype(np.float32)
