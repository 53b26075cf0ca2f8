"""What lip sync sees in training beside what it hears: faces, and another frame of each."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.lip_sync.preprocess import stack_faces
from training.face_changes import change_look, cut, draw_place, mirror, move_points
from training.sounds import SILENT_SHARE, Sound, hear, quiet_frames, silence
from training.talking import MARGIN, Bytes, Floats, TalkingClip

# Of the 20 lip points: the middle of the inner lips, upper and lower.
INNER_TOP, INNER_BOTTOM = [13, 14, 15], [19, 18, 17]
NEAREST_REFERENCE = 3  # frames from the one that is asked for: neighbours show the same mouth


@dataclass(frozen=True)
class Talking:
    """A clip at hand: faces (T, 120, 120, 3), lips (T, 20, 2) px of the face of 96, and its sound."""

    name: str
    faces: Bytes
    lips: Floats
    sound: Sound
    gaps: Floats  # (T,) between the lips, px
    quiet: tuple[int, ...]  # frames whose mouth rests

    @property
    def n_frames(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Batch:
    """mels (B, 1, 80, 16), faces (B, 6, 96, 96), wanted (B, 3, 96, 96) of 0..1, lips (B, 20, 2) px of 96."""

    mels: Tensor
    faces: Tensor
    wanted: Tensor
    lips: Tensor


def gap_of(lips: Floats) -> Floats:
    """How far the inner lips are apart, px: (...,) of (..., 20, 2)."""
    return np.asarray((lips[..., INNER_BOTTOM, 1] - lips[..., INNER_TOP, 1]).mean(-1), np.float32)


def prepare(clip: TalkingClip) -> Talking:
    faces, gaps = clip.faces(), gap_of(clip.lips)
    sound = hear(clip.samples, len(faces), (zlib.crc32(clip.name.encode()),))
    return Talking(clip.name, faces, clip.lips, sound, gaps, quiet_frames(gaps))


def draw_batch(clips: Sequence[Talking], size: int, rng: np.random.Generator) -> Batch:
    """Frames of clips drawn at random, each with another frame of its clip to show whose mouth it is."""
    rows = [draw_sample(clips[int(rng.integers(len(clips)))], rng) for _ in range(size)]
    mels, wanted, shown, lips = (list(column) for column in zip(*rows, strict=True))
    whole = stack_faces(shown)
    masked = stack_faces(wanted)
    faces = np.concatenate([masked[:, :3], whole[:, 3:]], axis=1)
    return Batch(
        torch.from_numpy(np.stack(mels)[:, None]),
        torch.from_numpy(faces),
        torch.from_numpy(np.ascontiguousarray(masked[:, 3:])),
        torch.from_numpy(np.stack(lips)),
    )


def draw_sample(clip: Talking, rng: np.random.Generator) -> tuple[Floats, Bytes, Bytes, Floats]:
    """Its mel (80, 16), the face that is asked for and another (96, 96, 3), its lips (20, 2)."""
    is_silent = rng.random() < SILENT_SHARE
    frame = int(rng.choice(clip.quiet)) if is_silent else int(rng.integers(clip.n_frames))
    other = draw_reference(clip, frame, rng)
    mel = silence(rng) if is_silent else clip.sound.draw(frame, rng)
    place = draw_place(rng)
    seen = [cut(clip.faces[i], place) for i in (frame, other)]
    lips = move_points(clip.lips[frame], place)
    if rng.random() < 0.5:
        seen, lips = mirror(seen, lips)
    wanted, shown = change_look(seen, rng)
    return mel, wanted, shown, lips


def draw_reference(clip: Talking, frame: int, rng: np.random.Generator) -> int:
    """Another frame; often one whose mouth differs, so that nothing is gained by keeping the mouth that is shown."""
    others = [i for i in range(clip.n_frames) if abs(i - frame) >= NEAREST_REFERENCE]
    drawn = rng.choice(others, 1 if rng.random() < 0.4 else 2)
    return int(max(drawn, key=lambda i: abs(clip.gaps[i] - clip.gaps[frame])))


def cut_plain(face: Bytes) -> Bytes:
    return np.ascontiguousarray(face[MARGIN:-MARGIN, MARGIN:-MARGIN])
