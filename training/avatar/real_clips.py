"""Real voices with the measured gap between the lips: video clips of speakers, and packs of their mouths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inference.audio.mel import FULL_SCALE, SAMPLE_RATE
from inference.media.audio import read_audio
from training.avatar.utterances import LabelledUtterance, cut_windows
from training.common.arrays import Floats
from training.common.lips import INNER_BOTTOM, INNER_TOP, MOUTH_CORNERS
from training.common.mouth_packs import MouthClip, load_packs
from training.common.speech import count_frames, degrade

ASPECT = 288 / 360  # height / width of GRID's frames; lip points are shares of both
CLOSED, WIDE = 15, 90  # percentiles of all gaps: closed lips, and those of a wide vowel
WIDE_GAP = 0.87  # gap of rendered speech at the percentile WIDE


def measure_gaps(lips: Floats) -> Floats:
    """Return the gap between the inner lips over the median width of the mouth: (T,) of (T, 20, 2)."""
    left, right = MOUTH_CORNERS
    points = lips * np.array([1, ASPECT], np.float32)
    width = np.median(np.hypot(*(points[:, right] - points[:, left]).T))
    gaps = np.hypot(*(points[:, INNER_BOTTOM] - points[:, INNER_TOP]).transpose(2, 0, 1)).mean(axis=1)
    return np.asarray(gaps / width, np.float32)


def scale_to_rendered(gaps: list[Floats]) -> list[Floats]:
    """Scale the gaps of all clips to those of the renderer: closed lips become 0, and wide ones as wide as rendered."""
    low, high = np.percentile(np.concatenate(gaps), [CLOSED, WIDE])
    return [np.clip((gap - low) / (high - low) * WIDE_GAP, 0, None).astype(np.float32) for gap in gaps]


def load_real_utterances(clips: Path, mouths: Path, seed: int) -> list[LabelledUtterance]:
    """Load each clip (SPEAKER_NAME.mp4) whose mouth is in a pack. The audio of every other one is degraded."""
    packed = {clip.name: clip for clip in load_packs(mouths)}
    paths = [path for path in sorted(clips.glob("*.mp4")) if path.stem.split("_")[1] in packed]
    found = [packed[path.stem.split("_")[1]] for path in paths]
    gaps = scale_to_rendered([measure_gaps(clip.lips) for clip in found])
    return [
        load_utterance(path, clip, gap, (seed, i))
        for i, (path, clip, gap) in enumerate(zip(paths, found, gaps, strict=True))
    ]


def load_utterance(path: Path, clip: MouthClip, gaps: Floats, seed: tuple[int, int]) -> LabelledUtterance:
    samples = (read_audio(path, SAMPLE_RATE) / FULL_SCALE).astype(np.float32)
    if seed[1] % 2:
        samples = degrade(samples, np.random.default_rng(seed))
    n_frames = min(count_frames(samples), len(clip.lips))
    return LabelledUtterance(cut_windows(samples, n_frames), None, gaps[:n_frames])
