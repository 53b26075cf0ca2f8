"""What lip sync hears in training: windows of the mel, changed as voices, rooms and microphones differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.audio import WINDOW, mel_columns, window_start
from inference.audio.mel import FULL_SCALE, HIGHEST, SILENCE
from inference.lip_sync.options import SyncOptions
from training.avatar.espeak import Espeak, mouths_of
from training.avatar.utterances import count_frames, gap_of, roughen, speak
from training.lip_sync.face_packs import FPS, Floats, Samples

Halves = npt.NDArray[np.float16]

OFFSET = SyncOptions().mel_offset_frames  # windows in training lie as they do in use
BEFORE, AFTER = 8, 40  # columns of silence kept around a clip's mel
N_ROUGHENED = 3  # copies of a sound, each as another microphone in another room gives it
SILENT_SHARE = 0.1  # of the samples: mouths at rest, with silence
SHUT = 15  # percentile of a clip's gaps below which its mouth is taken to rest
DECIBELS = 2 * HIGHEST / 100  # of the mel's scale
THROATS = (0.82, 1.22)  # factors of all frequencies of a voice
CHANGED, LOUDER, NOISED = 0.6, 0.6, 0.4  # parts of the windows
N_SHAPE = 3  # numbers of a mouth that are listened for: gap, height and width


@dataclass(frozen=True)
class Sound:
    """One clip's sound, T frames of it.

    mels: padded spectrograms, (80, BEFORE + columns + AFTER) each: the first as it was, others roughened.
    """

    mels: tuple[Halves, ...]

    def window(self, frame: int, version: int = 0) -> Floats:
        """What is heard at a frame: (80, 16)."""
        start = window_start(frame, FPS, OFFSET) + BEFORE
        return self.mels[version][:, start : start + WINDOW].astype(np.float32)

    def draw(self, frame: int, rng: np.random.Generator) -> Floats:
        """The same as somebody else might sound somewhere else."""
        return change_sound(self.window(frame, int(rng.integers(len(self.mels)))), rng)


@dataclass(frozen=True)
class Heard:
    """A sound and the mouth that made it.

    shapes: (T, 3) float32, standardised gap, height and width. known: (3,) which of them were measured.
    """

    sound: Sound
    shapes: Floats
    known: Floats
    quiet: tuple[int, ...]


def hear(samples: Samples, n_frames: int, seed: Sequence[int]) -> Sound:
    """samples: (N,) int16, 16 kHz mono."""
    plain = samples.astype(np.float32) / np.float32(FULL_SCALE)
    versions = [roughen(plain, np.random.default_rng((*seed, k))) for k in range(N_ROUGHENED)]
    whole = [samples, *(np.round(np.clip(one, -1, 1) * (FULL_SCALE - 1)).astype(np.int16) for one in versions)]
    n_columns = window_start(n_frames, FPS) + AFTER
    return Sound(tuple(mel_columns(one, -BEFORE, n_columns).astype(np.float16) for one in whole))


def quiet_frames(gaps: Floats) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(gaps <= np.percentile(gaps, SHUT))))


def speak_voices(n_utterances: int, seed: int) -> list[Heard]:
    """Utterances of the voices of espeak-ng: of the mouth that says them only the gap is taken, which is sure.

    Raises: FileNotFoundError where espeak-ng is not installed.
    """
    espeak, said = Espeak(), []
    for i in range(n_utterances):
        samples, sounds = speak(espeak, np.random.default_rng((seed, i)))
        gaps = gap_of(mouths_of(sounds, np.arange(count_frames(samples)) / FPS))
        whole = np.round(np.clip(samples, -1, 1) * (FULL_SCALE - 1)).astype(np.int16)
        said.append((hear(whole, len(gaps), (seed, i)), gaps))
    every = np.concatenate([gaps for _, gaps in said]) if said else np.zeros(1, np.float32)
    return [
        Heard(sound, only_gap((gaps - every.mean()) / every.std()), GAP_ALONE, quiet_frames(gaps))
        for sound, gaps in said
    ]


GAP_ALONE: Floats = np.array([1, 0, 0], np.float32)


def only_gap(gaps: Floats) -> Floats:
    return np.asarray(gaps[:, None] * GAP_ALONE, np.float32)


def draw_heard(kinds: Sequence[Sequence[Heard]], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (B, 1, 80, 16), the shapes (B, 3) of their frames, and which are known; each kind as often."""
    mels, shapes, known = [], [], []
    for _ in range(size):
        kind = kinds[int(rng.integers(len(kinds)))]
        one = kind[int(rng.integers(len(kind)))]
        is_silent = rng.random() < SILENT_SHARE
        frame = int(rng.choice(one.quiet)) if is_silent else int(rng.integers(len(one.shapes)))
        mels.append(silence(rng) if is_silent else one.sound.draw(frame, rng))
        shapes.append(one.shapes[frame])
        known.append(one.known)
    return (
        torch.from_numpy(np.stack(mels)[:, None]),
        torch.from_numpy(np.stack(shapes)),
        torch.from_numpy(np.stack(known)),
    )


def change_sound(mel: Floats, rng: np.random.Generator) -> Floats:
    """Another loudness, a voice of another size, and a noise floor."""
    if rng.random() < CHANGED:
        mel = stretch_voice(mel, rng.uniform(*THROATS))
    if rng.random() < LOUDER:
        heard = mel > SILENCE
        mel = np.where(heard, mel + rng.uniform(-12, 8) * DECIBELS, mel)
    if rng.random() < NOISED:
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
