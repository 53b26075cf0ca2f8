"""Clips of faces that a network drew, with their lips as a landmarker finds them.

A network that finds lips in true faces only is wrong about drawn ones where these differ most: pressed lips and wide
mouths. So it learns from both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from inference.faces import FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import stack_faces
from inference.models import Wav2Lip
from training.common.arrays import Bytes, Floats
from training.common.face_packs import MARGIN
from training.common.lips import landmark_gap
from training.lip_sync.evaluate import ENLARGEMENT, enlarge, paste
from training.lip_sync.samples import MOST_PRESSED, PreparedClip, remove_margin
from training.lip_sync.shape_encoding import SHUT, TALL, WIDEST, ShapeEncoding, spread

N_CLIPS, N_FACES = 200, 16  # clips, and drawn faces of each
WIDEST_DRAWN = 1.6  # own opening


def draw_clips(
    network: Wav2Lip, encoding: ShapeEncoding, clips: Sequence[PreparedClip], landmarker: Landmarker, seed: int
) -> list[PreparedClip]:
    """Draw faces of random clips with random mouths. A clip without a found face is left out."""
    rng = np.random.default_rng(seed)
    chosen = [clips[i] for i in rng.permutation(len(clips))[:N_CLIPS]]
    drawn = (draw_clip(network, encoding, clip, landmarker, rng) for clip in chosen)
    return [clip for clip in drawn if clip is not None]


def draw_clip(
    network: Wav2Lip,
    encoding: ShapeEncoding,
    clip: PreparedClip,
    landmarker: Landmarker,
    rng: np.random.Generator,
) -> PreparedClip | None:
    """Draw some faces of a clip with random mouths; None if a landmarker finds a face in none of them."""
    frames = rng.integers(clip.n_frames, size=N_FACES)
    openings = rng.uniform(MOST_PRESSED, WIDEST_DRAWN, N_FACES).astype(np.float32)
    shapes = set_openings(clip.shapes[rng.integers(clip.n_frames, size=N_FACES)], openings)
    faces = draw_faces(network, encoding, [clip.faces[i] for i in frames], shapes)
    found = list(find_lips(faces, landmarker))
    if not found:
        return None
    lips = np.stack([points for _, points in found])
    return replace(
        clip,
        faces=np.stack([face for face, _ in found]),
        lips=lips,
        gaps=landmark_gap(lips),
        shapes=np.zeros((len(found), 3), np.float32),
    )


def set_openings(shapes: Floats, openings: Floats) -> Floats:
    """Return shapes (B, 3) with other openings (B,), and the heights that go with them."""
    heights = shapes[:, 1] + TALL * (WIDEST - SHUT) * (openings - shapes[:, 0])
    return np.stack([openings, heights, shapes[:, 2]], axis=1)


@torch.no_grad()
def draw_faces(network: Wav2Lip, encoding: ShapeEncoding, faces: Sequence[Bytes], shapes: Floats) -> list[Bytes]:
    """Draw the faces (120, 120, 3), with their margins, with mouths of the given shapes (B, 3)."""
    network.eval()
    inputs = torch.from_numpy(stack_faces([remove_margin(face) for face in faces]))
    output = network.draw(
        encoding(spread(torch.from_numpy(shapes))), inputs.contiguous(memory_format=torch.channels_last)
    )
    patches = to_patches(output.float().numpy())
    return [paste(face, patch) for face, patch in zip(faces, patches, strict=True)]


def find_lips(faces: Iterable[Bytes], landmarker: Landmarker) -> Iterator[tuple[Bytes, Floats]]:
    """Yield each face in which a landmarker finds one, with its lips (20, 2), px of the face of 96."""
    for image in faces:
        (face,) = FaceTracker(landmarker).follow([enlarge(image)])
        if face is not None:
            yield image, (face.points[LIP_POINTS] / ENLARGEMENT - MARGIN).astype(np.float32)
