"""Windows cut anywhere out of several concatenated clips, as lip reading meets them in a long video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.common.arrays import Bytes, Floats
from training.common.mouth_packs import BETWEEN_WORDS, N_FRAMES
from training.lip_reading.augmentation import MouthSample, select_frames
from training.lip_reading.targets import visible_text

MAX_TRANSITION = 5  # frames blended between two clips
PLAYBACK_RATES = (0.92, 1.08)  # frames of the clips per frame of the window


def cut_window(parts: Sequence[MouthSample], rng: np.random.Generator) -> MouthSample:
    """Cut 75 frames out of the concatenated parts, at a random place and a little faster or slower.

    Of a word cut by an edge, the text keeps the characters whose middle is inside.
    """
    whole = concatenate(parts, rng)
    n_frames = len(whole.word_indices)
    rate = rng.uniform(*PLAYBACK_RATES)
    start = rng.uniform(0, max(n_frames - N_FRAMES * rate, 0))
    wander = np.interp(np.arange(N_FRAMES), np.linspace(0, N_FRAMES - 1, 8), rng.uniform(-1, 1, 8))
    frames = np.clip(np.rint(start + np.arange(N_FRAMES) * rate + wander), 0, n_frames - 1).astype(np.int64)
    window = select_frames(whole, np.maximum.accumulate(frames))
    return replace(window, text=visible_text(window.words, window.word_indices, window.word_progress))


def concatenate(parts: Sequence[MouthSample], rng: np.random.Generator) -> MouthSample:
    """Concatenate parts to one long sample; the pauses between them get random lengths."""
    trimmed = [trim_silence(part, rng, is_first=i == 0, is_last=i == len(parts) - 1) for i, part in enumerate(parts)]
    whole = trimmed[0]
    for part in trimmed[1:]:
        whole = append(whole, part, int(rng.integers(0, MAX_TRANSITION + 1)))
    return whole


def trim_silence(part: MouthSample, rng: np.random.Generator, *, is_first: bool, is_last: bool) -> MouthSample:
    """Cut some of the silence before and after a part's words, except at the start and the end of the whole."""
    spoken = np.flatnonzero(part.word_indices != BETWEEN_WORDS)
    first, end = int(spoken[0]), int(spoken[-1]) + 1
    start = 0 if is_first else int(rng.integers(0, first + 1))
    stop = len(part.word_indices) if is_last else int(rng.integers(end, len(part.word_indices) + 1))
    return select_frames(part, np.arange(start, stop))


def append(whole: MouthSample, part: MouthSample, n_between: int) -> MouthSample:
    """Append a part, after `n_between` frames that blend from one to the other."""
    shares = (np.arange(1, n_between + 1) / (n_between + 1)).astype(np.float32)
    indices = np.where(part.word_indices == BETWEEN_WORDS, BETWEEN_WORDS, part.word_indices + len(whole.words))
    return MouthSample(
        frames=np.concatenate([whole.frames, blend(whole.frames[-1], part.frames[0], shares), part.frames]),
        lips=np.concatenate([whole.lips, blend(whole.lips[-1], part.lips[0], shares), part.lips]),
        word_indices=np.concatenate([whole.word_indices, np.full(n_between, BETWEEN_WORDS), indices]),
        word_progress=np.concatenate([whole.word_progress, np.zeros(n_between, np.float32), part.word_progress]),
        words=whole.words + part.words,
        text=f"{whole.text} {part.text}",
    )


def blend(before: Bytes, after: Bytes, shares: Floats) -> Bytes:
    """Blend two arrays: (n, ...), one for each share of the later one."""
    weights = shares.reshape(-1, *[1] * before.ndim)
    between = before * (1 - weights) + after * weights
    return (np.rint(between) if before.dtype == np.uint8 else between).astype(before.dtype)
