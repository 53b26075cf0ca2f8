"""Image samples that lip sync trains on: faces that do not reveal the target mouth.

In use the network gets the upper half of a frame, and one whole face for as long as it fits: its mouth has nothing to
do with the audio. In training both come from other frames of the clip than the target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.lip_sync.preprocess import FACE_SIZE, MASKED_FROM, stack_faces
from training.common.arrays import Bytes, Floats
from training.common.face_packs import MARGIN, FaceClip
from training.common.lips import MIRRORED_LIPS, landmark_gap, measure_shapes
from training.common.mel_windows import ClipMels, make_clip_mels
from training.common.mouth_examples import CLOSED, WIDEST
from training.lip_sync.augmentation import (
    change_appearance,
    draw_warp,
    mirror,
    perturb_warp,
    warp_face,
    warp_points,
)
from training.lip_sync.facial_hair import FACIAL_HAIR_SHARE, draw_facial_hair
from training.lip_sync.stabilise import stabilise

MIN_DISTANCE = 3  # frames between the target and its references: neighbours show the same mouth
SAME_FRAME_SHARE = 0.1  # share of samples whose upper half and whole face come from one frame
MIN_DEVIATION = 1e-3  # px; lips that move less count as still
PRESSED_SHARE = 0.2  # share of samples whose lips are pressed together further than in any frame
CLOSED_BELOW, MOST_PRESSED = 0.08, -0.3  # own openings: below the first, lips count as closed; the least that is drawn
SEAM_ROWS = 4  # rows either side of the edge of the masked half, over which the two halves of a target blend


@dataclass(frozen=True)
class PreparedClip:
    """A decoded clip: faces (T, 120, 120, 3), lips (T, 20, 2) px of the face of 96, and its audio."""

    name: str
    faces: Bytes
    lips: Floats
    audio: ClipMels
    gaps: Floats  # (T,) between the lips, px
    shapes: Floats  # (T, 3) of `own_shapes`

    @property
    def n_frames(self) -> int:
        return len(self.faces)

    @property
    def gap_unit(self) -> float:
        """The gap of an opening of 1 less that of closed lips, px; 0 if the lips are still."""
        deviation = float(self.shapes[:, 0].std())
        return float(self.gaps.std()) / deviation if deviation > MIN_DEVIATION else 0.0


@dataclass(frozen=True)
class FaceSample:
    """Faces (96, 96, 3), the lips (20, 2) and shape (3,) of the target's mouth, and what its gap must be more, px."""

    target: Bytes
    reference: Bytes
    lips: Floats
    shape: Floats
    gap_change: float


@dataclass(frozen=True)
class FaceBatch:
    """faces (B, 6, 96, 96) and targets (B, 3, 96, 96), 0..1; lips (B, 20, 2) of the targets, px of 96.

    shapes: (B, 3) of the mouths to draw, as by `own_shapes`. gap_changes: (B,) px, what their gaps must be more than
    those of the targets: below 0 for lips that are pressed together.
    """

    faces: Tensor
    targets: Tensor
    lips: Tensor
    shapes: Tensor
    gap_changes: Tensor


def own_shapes(clips: Iterable[FaceClip]) -> dict[str, Floats]:
    """Return the shapes (T, 3) of each clip's mouths, by its name, as an audio encoder predicts them.

    The opening is counted in that of the clip's person, 0 closed and 1 the widest: the gap that is measured between
    closed lips differs between people. Height and width are in standard deviations of that person's.
    """
    by_person: dict[str, dict[str, Floats]] = defaultdict(dict)
    for clip in clips:
        by_person[clip.person][clip.name] = measure_shapes(clip.lips)
    shapes: dict[str, Floats] = {}
    for own in by_person.values():
        every = np.concatenate(list(own.values()))
        closed, widest = np.percentile(every[:, 0], (CLOSED, WIDEST))
        unit = np.maximum([widest - closed, *every[:, 1:].std(0)], MIN_DEVIATION)
        shapes |= {name: ((one - [closed, 0, 0]) / unit).astype(np.float32) for name, one in own.items()}
    return shapes


def prepare_clip(clip: FaceClip, shapes: Floats) -> PreparedClip:
    """Decode a clip. shapes: of `own_shapes`."""
    return add_audio(clip, clip.faces(), clip.lips, shapes)


def prepare_stabilised(clip: FaceClip, shapes: Floats) -> PreparedClip:
    """Decode a clip and align its faces, so that their halves can be exchanged. shapes: of `own_shapes`."""
    return add_audio(clip, *stabilise(clip.faces(), clip.lips), shapes)


def add_audio(clip: FaceClip, faces: Bytes, lips: Floats, shapes: Floats) -> PreparedClip:
    audio = make_clip_mels(clip.samples, len(faces), (), n_degraded=0)  # only scores need it
    return PreparedClip(clip.name, faces, lips, audio, landmark_gap(lips), shapes)


def draw_batch(clips: Sequence[PreparedClip], size: int, rng: np.random.Generator) -> FaceBatch:
    """Draw frames of stabilised clips, each with other frames of its clip as references."""
    drawn = [clips[int(rng.integers(len(clips)))] for _ in range(size)]
    samples = [draw_sample(clip, rng) for clip in drawn]
    whole = stack_faces([one.reference for one in samples])
    masked = stack_faces([one.target for one in samples])
    faces = np.concatenate([masked[:, :3], whole[:, 3:]], axis=1)
    return FaceBatch(
        torch.from_numpy(faces),
        torch.from_numpy(np.ascontiguousarray(masked[:, 3:])),
        torch.from_numpy(np.stack([one.lips for one in samples])),
        torch.from_numpy(np.stack([one.shape for one in samples])),
        torch.tensor([one.gap_change for one in samples]),
    )


def add_mirrored(batch: FaceBatch) -> FaceBatch:
    """Append a copy of the samples with left and right exchanged."""
    factor, offset = torch.tensor([-1.0, 1.0]), torch.tensor([FACE_SIZE - 1.0, 0.0])
    lips = batch.lips[:, MIRRORED_LIPS] * factor + offset
    return FaceBatch(
        torch.cat([batch.faces, batch.faces.flip(3)]),
        torch.cat([batch.targets, batch.targets.flip(3)]),
        torch.cat([batch.lips, lips]),
        torch.cat([batch.shapes] * 2),
        torch.cat([batch.gap_changes] * 2),
    )


def draw_sample(clip: PreparedClip, rng: np.random.Generator) -> FaceSample:
    """Draw a frame of a clip, with another as its reference."""
    frame, shape = draw_mouth(clip, rng)
    upper_frame = draw_reference(clip, frame, rng)
    whole_frame = upper_frame if rng.random() < SAME_FRAME_SHARE else draw_reference(clip, frame, rng)
    warp = draw_warp(rng)
    other_warp = warp if whole_frame == upper_frame else perturb_warp(warp, rng)
    upper, lower = (warp_face(clip.faces[i], warp) for i in (upper_frame, frame))
    reference = warp_face(clip.faces[whole_frame], other_warp)
    faces, lips = [join_halves(upper, lower), reference], warp_points(clip.lips[frame], warp)
    if rng.random() < FACIAL_HAIR_SHARE:
        hair = draw_facial_hair(rng)
        other_lips = warp_points(clip.lips[whole_frame], other_warp)
        faces = [hair.paint(face, mouth) for face, mouth in zip(faces, (lips, other_lips), strict=True)]
    if rng.random() < 0.5:
        faces, lips = mirror(faces, lips)
    target, reference = change_appearance(faces, rng)
    return FaceSample(target, reference, lips, shape, float(shape[0] - clip.shapes[frame, 0]) * clip.gap_unit)


def draw_mouth(clip: PreparedClip, rng: np.random.Generator) -> tuple[int, Floats]:
    """Draw a frame and the shape to draw: that of its mouth; or of a closed mouth, pressed together further.

    A landmarker finds a gap between closed lips, and no frame shows what speech predicts of b, m and p. So less than
    closed must be drawn with a smaller gap.
    """
    closed = np.flatnonzero(clip.shapes[:, 0] < CLOSED_BELOW)
    if not len(closed) or rng.random() >= PRESSED_SHARE:
        frame = int(rng.integers(clip.n_frames))
        return frame, clip.shapes[frame]
    frame = int(rng.choice(closed))
    shape = clip.shapes[frame].copy()
    highest = np.clip(shape[0], MOST_PRESSED, 0)
    shape[0] = MOST_PRESSED + rng.random() * (highest - MOST_PRESSED)
    return frame, shape


def join_halves(upper: Bytes, lower: Bytes) -> Bytes:
    """Join one face's upper half to another's lower half: (96, 96, 3)."""
    share = np.clip((np.arange(FACE_SIZE) - MASKED_FROM) / (2 * SEAM_ROWS) + 0.5, 0, 1)[:, None, None]
    return np.asarray(np.rint(upper * (1 - share) + lower * share), np.uint8)


def draw_reference(clip: PreparedClip, frame: int, rng: np.random.Generator) -> int:
    """Draw another frame, often one whose mouth differs, so that copying the reference's mouth does not pay."""
    others = [i for i in range(clip.n_frames) if abs(i - frame) >= MIN_DISTANCE]
    drawn = rng.choice(others, 1 if rng.random() < 0.4 else 2)
    return int(max(drawn, key=lambda i: abs(clip.gaps[i] - clip.gaps[frame])))


def remove_margin(face: Bytes) -> Bytes:
    return np.ascontiguousarray(face[MARGIN:-MARGIN, MARGIN:-MARGIN])
