"""Audio that lip sync trains on: mel windows, varied as voices, rooms and microphones differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.audio import MEL_WINDOW, mel_columns, window_start
from inference.audio.mel import FULL_SCALE, MAX_MEL, SILENCE
from inference.lip_sync.options import SyncOptions
from training.common.arrays import Floats
from training.common.espeak import Espeak, mouth_shapes_at
from training.common.lips import shape_gap
from training.common.speech import count_frames, degrade, synthesise_utterance
from training.common.synthetic_clips import FPS
from training.lip_sync.face_packs import Samples

Halves = npt.NDArray[np.float16]

OFFSET = SyncOptions().mel_offset_frames  # the same offset as in inference
COLUMNS_BEFORE, COLUMNS_AFTER = 8, 40  # mel columns of silence stored around a clip
N_DEGRADED = 3  # degraded copies of each clip's audio
SILENT_SHARE = 0.1  # share of samples with silence and a mouth at rest
REST_PERCENTILE = 15  # a mouth is at rest if its gap is below this percentile of the clip's gaps
DECIBEL = 2 * MAX_MEL / 100  # one dB on the mel's scale
VOCAL_TRACT_FACTORS = (0.82, 1.22)  # range of factors of all frequencies of a voice
TRACT_SHARE, LOUDNESS_SHARE, NOISE_SHARE = 0.6, 0.6, 0.4  # shares of windows with each change
N_SHAPES = 3  # numbers of a mouth shape: gap, height and width
GAP_ONLY: Floats = np.array([1, 0, 0], np.float32)


@dataclass(frozen=True)
class ClipMels:
    """Mel spectrograms of one clip's audio: as recorded, then degraded copies. Each is (80, before + T + after)."""

    mels: tuple[Halves, ...]

    def window(self, frame: int, version: int = 0) -> Floats:
        """Return the mel window of a video frame: (80, 16)."""
        start = window_start(frame, FPS, OFFSET) + COLUMNS_BEFORE
        return self.mels[version][:, start : start + MEL_WINDOW].astype(np.float32)

    def draw_window(self, frame: int, rng: np.random.Generator) -> Floats:
        """Draw a varied copy of the window, as of another speaker in another room."""
        return vary_mel(self.window(frame, int(rng.integers(len(self.mels)))), rng)


@dataclass(frozen=True)
class AudioExample:
    """Audio and the mouth shapes that belong to it.

    shapes: (T, 3) float32, standardised gap, height and width. known: (3,) 1 for the numbers that were measured.
    rest_frames: frames whose mouth is at rest.
    """

    audio: ClipMels
    shapes: Floats
    known: Floats
    rest_frames: tuple[int, ...]


def make_clip_mels(samples: Samples, n_frames: int, seed: Sequence[int]) -> ClipMels:
    """Compute the mels of a clip. samples: (N,) int16, 16 kHz mono."""
    plain = samples.astype(np.float32) / np.float32(FULL_SCALE)
    degraded = [degrade(plain, np.random.default_rng((*seed, k))) for k in range(N_DEGRADED)]
    versions = [samples, *(to_int16(one) for one in degraded)]
    n_columns = window_start(n_frames, FPS) + COLUMNS_AFTER
    return ClipMels(tuple(mel_columns(one, -COLUMNS_BEFORE, n_columns).astype(np.float16) for one in versions))


def to_int16(samples: Floats) -> Samples:
    return np.round(np.clip(samples, -1, 1) * (FULL_SCALE - 1)).astype(np.int16)


def find_rest_frames(gaps: Floats) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(gaps <= np.percentile(gaps, REST_PERCENTILE))))


def synthesise_examples(n_utterances: int, seed: int) -> list[AudioExample]:
    """Synthesise utterances of espeak-ng's voices. Only the gap between the lips is known reliably.

    Raises: FileNotFoundError if espeak-ng is not installed.
    """
    espeak, utterances = Espeak(), []
    for i in range(n_utterances):
        samples, phonemes = synthesise_utterance(espeak, np.random.default_rng((seed, i)))
        gaps = shape_gap(mouth_shapes_at(phonemes, np.arange(count_frames(samples)) / FPS))
        utterances.append((make_clip_mels(to_int16(samples), len(gaps), (seed, i)), gaps))
    all_gaps = np.concatenate([gaps for _, gaps in utterances]) if utterances else np.zeros(1, np.float32)
    mean, deviation = all_gaps.mean(), all_gaps.std()
    return [
        AudioExample(audio, to_shapes((gaps - mean) / deviation), GAP_ONLY, find_rest_frames(gaps))
        for audio, gaps in utterances
    ]


def to_shapes(gaps: Floats) -> Floats:
    """Return shapes (T, 3) with only a gap."""
    return np.asarray(gaps[:, None] * GAP_ONLY, np.float32)


def draw_audio_batch(
    kinds: Sequence[Sequence[AudioExample]], size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw mel windows, from each kind of examples equally often.

    Returns: windows (B, 1, 80, 16), the shapes (B, 3) of their frames, and which numbers of them are known (B, 3).
    """
    mels, shapes, known = [], [], []
    for _ in range(size):
        kind = kinds[int(rng.integers(len(kinds)))]
        one = kind[int(rng.integers(len(kind)))]
        is_silent = rng.random() < SILENT_SHARE
        frame = int(rng.choice(one.rest_frames)) if is_silent else int(rng.integers(len(one.shapes)))
        mels.append(draw_silence(rng) if is_silent else one.audio.draw_window(frame, rng))
        shapes.append(one.shapes[frame])
        known.append(one.known)
    return (
        torch.from_numpy(np.stack(mels)[:, None]),
        torch.from_numpy(np.stack(shapes)),
        torch.from_numpy(np.stack(known)),
    )


def vary_mel(mel: Floats, rng: np.random.Generator) -> Floats:
    """Change the loudness and the size of the vocal tract, and add a noise floor, each with a chance."""
    if rng.random() < TRACT_SHARE:
        mel = scale_frequencies(mel, rng.uniform(*VOCAL_TRACT_FACTORS))
    if rng.random() < LOUDNESS_SHARE:
        mel = np.where(mel > SILENCE, mel + rng.uniform(-12, 8) * DECIBEL, mel)
    if rng.random() < NOISE_SHARE:
        mel = np.maximum(mel, draw_silence(rng))
    return np.clip(mel, SILENCE, MAX_MEL).astype(np.float32)


def scale_frequencies(mel: Floats, factor: float) -> Floats:
    """Multiply all frequencies, as a shorter or longer vocal tract does: (80, T)."""
    rows = np.clip(np.arange(len(mel)) / factor, 0, len(mel) - 1)
    low = np.floor(rows).astype(int)
    high = np.minimum(low + 1, len(mel) - 1)
    part = (rows - low)[:, None]
    return np.asarray(mel[low] * (1 - part) + mel[high] * part, np.float32)


def draw_silence(rng: np.random.Generator) -> Floats:
    """Draw digital silence or the faint noise of a room: (80, 16)."""
    if rng.random() < 0.5:
        return np.full((80, MEL_WINDOW), SILENCE, np.float32)
    floor = rng.uniform(-95, -55) + np.linspace(0, rng.uniform(-25, 5), 80)[:, None]
    levels = SILENCE + (floor + 100 + rng.normal(0, 4, (80, MEL_WINDOW))) * DECIBEL
    return np.clip(levels, SILENCE, MAX_MEL).astype(np.float32)
