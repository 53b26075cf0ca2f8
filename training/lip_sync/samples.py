"""What lip sync sees in training beside the shape that it is told: a face that keeps its mouth to itself.

In use the upper half of a frame is given, and one face whole for as long as it fits: a mouth that has nothing to do
with what is heard. In training both are other frames of the clip than the one that is asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.lip_sync.preprocess import MASKED_FROM, SIDE, stack_faces
from training.lip_reading.augmentation import MIRRORED_LIPS
from training.lip_sync.audio_samples import Sound, hear, quiet_frames
from training.lip_sync.augmentation import change_look, cut, draw_place, mirror, move_a_little, move_points
from training.lip_sync.face_packs import MARGIN, Bytes, Floats, TalkingClip
from training.lip_sync.stabilise import steady

# Of the 20 lip points: the middle of the inner lips, upper and lower.
INNER_TOP, INNER_BOTTOM = [13, 14, 15], [19, 18, 17]
NEAREST_REFERENCE = 3  # frames from the one that is asked for: neighbours show the same mouth
SAME_SHOWN = 0.1  # of the samples: the frame whose upper half is given is also the one that is shown whole
SEAM = 4  # rows either side of the masked part's edge, over which the two halves of a wanted face blend


@dataclass(frozen=True)
class Talking:
    """A clip at hand: faces (T, 120, 120, 3), lips (T, 20, 2) px of the face of 96, and its sound."""

    name: str
    faces: Bytes
    lips: Floats
    sound: Sound
    gaps: Floats  # (T,) between the lips, px
    shapes: Floats  # (T, 3) of the mouth, as `shapes_of` has them
    quiet: tuple[int, ...]  # frames whose mouth rests

    @property
    def n_frames(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Batch:
    """faces (B, 6, 96, 96), wanted (B, 3, 96, 96) of 0..1, lips (B, 20, 2) px of 96.

    shapes: (B, 3) of the mouths that are wanted, px, as `shapes_of` has them.
    """

    faces: Tensor
    wanted: Tensor
    lips: Tensor
    shapes: Tensor


def gap_of(lips: Floats) -> Floats:
    """How far the inner lips are apart, px: (...,) of (..., 20, 2)."""
    return np.asarray((lips[..., INNER_BOTTOM, 1] - lips[..., INNER_TOP, 1]).mean(-1), np.float32)


def shapes_of(lips: Floats) -> Floats:
    """(T, 3) px of a clip's (T, 20, 2): the gap between the lips, and how far height and width are off their means.

    Lips differ more between people than a voice tells; what they do as they talk is alike.
    """
    height, width = lips[:, 9, 1] - lips[:, 3, 1], lips[:, 6, 0] - lips[:, 0, 0]
    return np.stack([gap_of(lips), height - height.mean(), width - width.mean()], axis=1).astype(np.float32)


def prepare(clip: TalkingClip) -> Talking:
    """As it was filmed."""
    return at_hand(clip, clip.faces(), clip.lips)


def prepare_steady(clip: TalkingClip) -> Talking:
    """With faces whose halves may be exchanged."""
    return at_hand(clip, *steady(clip.faces(), clip.lips))


def at_hand(clip: TalkingClip, faces: Bytes, lips: Floats) -> Talking:
    gaps = gap_of(lips)
    sound = hear(clip.samples, len(faces), (zlib.crc32(clip.name.encode()),))
    return Talking(clip.name, faces, lips, sound, gaps, shapes_of(lips), quiet_frames(gaps))


def draw_batch(clips: Sequence[Talking], size: int, rng: np.random.Generator) -> Batch:
    """Frames of steadied clips drawn at random, each with other frames of its clip to show whose mouth it is."""
    drawn = [clips[int(rng.integers(len(clips)))] for _ in range(size)]
    wanted, shown, lips, shapes = (
        list(column) for column in zip(*(draw_sample(clip, rng) for clip in drawn), strict=True)
    )
    whole = stack_faces(shown)
    masked = stack_faces(wanted)
    faces = np.concatenate([masked[:, :3], whole[:, 3:]], axis=1)
    return Batch(
        torch.from_numpy(faces),
        torch.from_numpy(np.ascontiguousarray(masked[:, 3:])),
        torch.from_numpy(np.stack(lips)),
        torch.from_numpy(np.stack(shapes)),
    )


def add_mirrored(batch: Batch) -> Batch:
    """Twice as many: behind the samples the same with left and right exchanged."""
    other_side = torch.tensor([-1.0, 1.0]), torch.tensor([SIDE - 1.0, 0.0])
    lips = batch.lips[:, MIRRORED_LIPS] * other_side[0] + other_side[1]
    return Batch(
        torch.cat([batch.faces, batch.faces.flip(3)]),
        torch.cat([batch.wanted, batch.wanted.flip(3)]),
        torch.cat([batch.lips, lips]),
        torch.cat([batch.shapes] * 2),
    )


def draw_sample(clip: Talking, rng: np.random.Generator) -> tuple[Bytes, Bytes, Floats, Floats]:
    """The face that is asked for and another (96, 96, 3), and its lips (20, 2) and their shape (3,)."""
    frame = int(rng.integers(clip.n_frames))
    given = draw_reference(clip, frame, rng)
    other = given if rng.random() < SAME_SHOWN else draw_reference(clip, frame, rng)
    place = draw_place(rng)
    upper, lower = (cut(clip.faces[i], place) for i in (given, frame))
    shown = cut(clip.faces[other], place if other == given else move_a_little(place, rng))
    seen, lips = [join_halves(upper, lower), shown], move_points(clip.lips[frame], place)
    if rng.random() < 0.5:
        seen, lips = mirror(seen, lips)
    wanted, shown = change_look(seen, rng)
    return wanted, shown, lips, clip.shapes[frame]


def join_halves(upper: Bytes, lower: Bytes) -> Bytes:
    """(96, 96, 3): one face's upper half on another's lower one."""
    share = np.clip((np.arange(SIDE) - MASKED_FROM) / (2 * SEAM) + 0.5, 0, 1)[:, None, None]
    return np.asarray(np.rint(upper * (1 - share) + lower * share), np.uint8)


def draw_reference(clip: Talking, frame: int, rng: np.random.Generator) -> int:
    """Another frame; often one whose mouth differs, so that nothing is gained by keeping the mouth that is shown."""
    others = [i for i in range(clip.n_frames) if abs(i - frame) >= NEAREST_REFERENCE]
    drawn = rng.choice(others, 1 if rng.random() < 0.4 else 2)
    return int(max(drawn, key=lambda i: abs(clip.gaps[i] - clip.gaps[frame])))


def cut_plain(face: Bytes) -> Bytes:
    return np.ascontiguousarray(face[MARGIN:-MARGIN, MARGIN:-MARGIN])
