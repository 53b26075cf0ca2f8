"""Mel windows of a clip's audio for each video frame, varied as people, rooms, microphones and codecs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.audio import MEL_WINDOW, mel_columns, window_start
from inference.audio.mel import FULL_SCALE, MAX_MEL, MEL_RATE, N_FFT, SAMPLE_RATE, SILENCE
from inference.lip_sync.options import SyncOptions
from training.common.arrays import Floats
from training.common.speech import companding, degrade, to_int16
from training.common.synthetic_clips import FPS

Halves = npt.NDArray[np.float16]
Samples = npt.NDArray[np.int16]

OFFSET = SyncOptions().mel_offset_frames  # the same offset as in inference
# From the start of a frame to the last sample that its window depends on: 173 ms.
LOOK_AHEAD_MS = 1000 * (OFFSET / FPS + (MEL_WINDOW - 1) / MEL_RATE + N_FFT / 2 / SAMPLE_RATE)
COLUMNS_BEFORE, COLUMNS_AFTER = 8, 40  # mel columns of silence stored around a clip
N_DEGRADED = 3  # degraded copies of each clip's audio
FAST_LENGTH = 640  # samples; of audio whose length is a multiple of it the spectrum is computed fast
CODEC_SHARE = 0.25  # share of them that a telephone's codec has changed
DECIBEL = 2 * MAX_MEL / 100  # one dB on the mel's scale
VOCAL_TRACT_FACTORS = (0.82, 1.22)  # range of factors of all frequencies of a voice
TRACT_SHARE, LOUDNESS_SHARE, NOISE_SHARE = 0.6, 0.6, 0.4  # shares of windows with each change


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

    def windows(self, n_frames: int) -> Floats:
        """Return the windows of the first frames as an encoder takes them: (T, 1, 80, 16)."""
        return np.stack([self.window(frame) for frame in range(n_frames)])[:, None]


def make_clip_mels(samples: Samples, n_frames: int, seed: Sequence[int], n_degraded: int = N_DEGRADED) -> ClipMels:
    """Compute the mels of a clip. samples: (N,) int16, 16 kHz mono."""
    samples = np.pad(samples, (0, -len(samples) % FAST_LENGTH))
    plain = samples.astype(np.float32) / np.float32(FULL_SCALE)
    degraded = [transmit(plain, np.random.default_rng((*seed, k))) for k in range(n_degraded)]
    versions = [samples, *(to_int16(one) for one in degraded)]
    n_columns = window_start(n_frames, FPS) + COLUMNS_AFTER
    return ClipMels(tuple(mel_columns(one, -COLUMNS_BEFORE, n_columns).astype(np.float16) for one in versions))


def transmit(samples: Floats, rng: np.random.Generator) -> Floats:
    """Degrade audio as a room and a microphone do, and at times as a codec does."""
    degraded = degrade(samples, rng)
    return companding(degraded) if rng.random() < CODEC_SHARE else degraded


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
