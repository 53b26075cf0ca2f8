"""What lip sync sees and hears in training: faces, another frame of each, and changed sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from inference.audio import WINDOW, mel_columns, window_start
from inference.audio.mel import HIGHEST, SILENCE
from inference.lip_sync.options import SyncOptions
from inference.lip_sync.preprocess import SIDE, stack_faces
from training.augmentation import MIRRORED_LIPS
from training.talking import FPS, MARGIN, Bytes, Floats, TalkingClip

OFFSET = SyncOptions().mel_offset_frames  # windows in training lie as they do in use
BEFORE, AFTER = 8, 40  # columns of silence kept around a clip's mel
# Of the 20 lip points: the middle of the inner lips, upper and lower, and the corners of the mouth.
INNER_TOP, INNER_BOTTOM = [13, 14, 15], [19, 18, 17]
FURTHEST_SHIFT, FURTHEST_SCALE = 6.0, 0.08  # of a face in its crop: px, and share
NEAREST_REFERENCE = 3  # frames from the one that is asked for: neighbours show the same mouth
SILENT_SHARE = 0.06  # of the samples: the quietest mouths, with silence
SHUT = 15  # percentile of a clip's gaps below which its mouth is taken to rest
DECIBELS = 2 * HIGHEST / 100  # of the mel's scale


@dataclass(frozen=True)
class Talking:
    """A clip at hand: faces (T, 120, 120, 3), lips (T, 20, 2) px of the face of 96, and its padded mel."""

    name: str
    faces: Bytes
    lips: Floats
    mel: Floats  # (80, BEFORE + T columns + AFTER)
    gaps: Floats  # (T,) between the lips, px
    quiet: tuple[int, ...]  # frames whose mouth rests

    @property
    def n_frames(self) -> int:
        return len(self.faces)

    def window(self, frame: int) -> Floats:
        """What is heard at a frame: (80, 16)."""
        start = window_start(frame, FPS, OFFSET) + BEFORE
        return self.mel[:, start : start + WINDOW]


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
    faces = clip.faces()
    n_columns = window_start(len(faces), FPS) + AFTER
    gaps = gap_of(clip.lips)
    quiet = np.flatnonzero(gaps <= np.percentile(gaps, SHUT))
    mel = mel_columns(clip.samples, -BEFORE, n_columns)
    return Talking(clip.name, faces, clip.lips, mel, gaps, tuple(map(int, quiet)))


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


def draw_heard(clips: Sequence[Talking], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Sounds (B, 1, 80, 16) and the lips (B, 20, 2) of their frames; no pictures, which cost most."""
    mels, lips = [], []
    for _ in range(size):
        clip = clips[int(rng.integers(len(clips)))]
        is_silent = rng.random() < SILENT_SHARE
        frame = int(rng.choice(clip.quiet)) if is_silent else int(rng.integers(clip.n_frames))
        mels.append(silence(rng) if is_silent else change_sound(clip.window(frame), rng))
        lips.append(clip.lips[frame])
    return torch.from_numpy(np.stack(mels)[:, None]), torch.from_numpy(np.stack(lips))


def draw_sample(clip: Talking, rng: np.random.Generator) -> tuple[Floats, Bytes, Bytes, Floats]:
    """Its mel (80, 16), the face that is asked for and another (96, 96, 3), its lips (20, 2)."""
    is_silent = rng.random() < SILENT_SHARE
    frame = int(rng.choice(clip.quiet)) if is_silent else int(rng.integers(clip.n_frames))
    other = draw_reference(clip, frame, rng)
    mel = silence(rng) if is_silent else change_sound(clip.window(frame), rng)
    place = draw_place(rng)
    wanted, shown = (cut(clip.faces[i], place) for i in (frame, other))
    lips = clip.lips[frame] @ place[:, :2].T + place[:, 2]
    if rng.random() < 0.5:
        wanted, shown = wanted[:, ::-1], shown[:, ::-1]
        lips = lips[MIRRORED_LIPS] * np.array([-1, 1]) + np.array([SIDE - 1, 0])
    wanted, shown = change_light([wanted, shown], rng)
    return mel, wanted, shown, lips.astype(np.float32)


def draw_reference(clip: Talking, frame: int, rng: np.random.Generator) -> int:
    """Another frame; often one whose mouth differs, so that nothing is gained by keeping the mouth that is shown."""
    others = [i for i in range(clip.n_frames) if abs(i - frame) >= NEAREST_REFERENCE]
    drawn = rng.choice(others, 1 if rng.random() < 0.4 else 2)
    return int(max(drawn, key=lambda i: abs(clip.gaps[i] - clip.gaps[frame])))


def draw_place(rng: np.random.Generator) -> Floats:
    """A shift and a scale, (2, 3), of points of the face of 96."""
    scale = 1 + rng.uniform(-FURTHEST_SCALE, FURTHEST_SCALE)
    shift = rng.uniform(-FURTHEST_SHIFT, FURTHEST_SHIFT, 2) + (1 - scale) * SIDE / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)


def cut(face: Bytes, place: Floats) -> Bytes:
    """(96, 96, 3) out of a face with its margin."""
    matrix = place.copy()
    matrix[:, 2] -= place[0, 0] * MARGIN
    return np.asarray(cv2.warpAffine(face, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def cut_plain(face: Bytes) -> Bytes:
    return np.ascontiguousarray(face[MARGIN:-MARGIN, MARGIN:-MARGIN])


def change_light(faces: list[Bytes], rng: np.random.Generator) -> list[Bytes]:
    """The same light for all: a gain for each colour, and one for all."""
    gains = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.7, 1.3)
    levels = rng.uniform(-12, 12)
    return [np.clip(face * gains + levels, 0, 255).astype(np.uint8) for face in faces]


def change_sound(mel: Floats, rng: np.random.Generator) -> Floats:
    """Another loudness, a voice of another size, and a noise floor."""
    if rng.random() < 0.5:
        mel = stretch_voice(mel, rng.uniform(0.88, 1.14))
    if rng.random() < 0.7:
        heard = mel > SILENCE
        mel = np.where(heard, mel + rng.uniform(-12, 8) * DECIBELS, mel)
    if rng.random() < 0.5:
        mel = np.maximum(mel, silence(rng))
    return np.clip(mel, SILENCE, HIGHEST).astype(np.float32)


def stretch_voice(mel: Floats, factor: float) -> Floats:
    """Frequencies times a factor, as of a shorter or longer vocal tract; (80, T)."""
    rows = np.clip(np.arange(len(mel)) / factor, 0, len(mel) - 1)
    low = np.floor(rows).astype(int)
    high = np.minimum(low + 1, len(mel) - 1)
    part = (rows - low)[:, None]
    return np.asarray(mel[low] * (1 - part) + mel[high] * part, np.float32)


def silence(rng: np.random.Generator) -> Floats:
    """Nothing, or the faint noise of a room: (80, 16)."""
    if rng.random() < 0.5:
        return np.full((80, WINDOW), SILENCE, np.float32)
    floor = rng.uniform(-95, -55) + np.linspace(0, rng.uniform(-25, 5), 80)[:, None]
    levels = SILENCE + (floor + 100 + rng.normal(0, 4, (80, WINDOW))) * DECIBELS
    return np.clip(levels, SILENCE, HIGHEST).astype(np.float32)
