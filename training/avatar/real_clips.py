"""Real voices, and how far the lips part that said them: talking clips with packs of their mouths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.audio.mel import FULL_SCALE, SAMPLE_RATE
from inference.media.sound import read_sound
from training.avatar.utterances import Heard, count_frames, cut_windows, roughen
from training.lip_reading.mouth_packs import MouthClip, load_packs
from training.lip_sync.samples import INNER_BOTTOM, INNER_TOP

Floats = npt.NDArray[np.float32]

CORNERS = (0, 6)  # of the 20 points of a mouth
ASPECT = 288 / 360  # of GRID's frames, which the points are shares of
SHUT, WIDE = 15, 90  # percentiles of all gaps: lips that touch, and those of a wide vowel
WIDE_GAP = 0.87  # the same percentile of rendered speech


def gaps_of(lips: Floats) -> Floats:
    """(T,) between the inner lips, as shares of the mouth's usual width; lips: (T, 20, 2)."""
    points = lips * np.array([1, ASPECT], np.float32)
    width = np.median(np.hypot(*(points[:, CORNERS[1]] - points[:, CORNERS[0]]).T))
    gaps = np.hypot(*(points[:, INNER_BOTTOM] - points[:, INNER_TOP]).transpose(2, 0, 1)).mean(axis=1)
    return np.asarray(gaps / width, np.float32)


def to_units(gaps: list[Floats]) -> list[Floats]:
    """Gaps of all clips as the renderer counts them: shut lips are 0, wide ones as wide as rendered."""
    low, high = np.percentile(np.concatenate(gaps), [SHUT, WIDE])
    return [np.clip((gap - low) / (high - low) * WIDE_GAP, 0, None).astype(np.float32) for gap in gaps]


def load_filmed(clips: Path, mouths: Path, seed: int) -> list[Heard]:
    """Each clip (SPEAKER_NAME.mp4) whose mouth is in a pack; every other one roughened."""
    packed = {clip.name: clip for clip in load_packs(mouths)}
    paths = [path for path in sorted(clips.glob("*.mp4")) if path.stem.split("_")[1] in packed]
    found = [packed[path.stem.split("_")[1]] for path in paths]
    gaps = to_units([gaps_of(clip.lips) for clip in found])
    return [
        hear(path, clip, gap, (seed, i)) for i, (path, clip, gap) in enumerate(zip(paths, found, gaps, strict=True))
    ]


def hear(path: Path, clip: MouthClip, gaps: Floats, seed: tuple[int, int]) -> Heard:
    samples = (read_sound(path, SAMPLE_RATE) / FULL_SCALE).astype(np.float32)
    if seed[1] % 2:
        samples = roughen(samples, np.random.default_rng(seed))
    n_frames = min(count_frames(samples), len(clip.lips))
    return Heard(cut_windows(samples, n_frames), None, gaps[:n_frames])
