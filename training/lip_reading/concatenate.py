"""Windows cut anywhere out of several clips said one after another: what reading sees of a long film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.lip_reading.augmentation import Sample, take_frames
from training.lip_reading.mouth_packs import BETWEEN_WORDS, N_FRAMES, Bytes, Floats, visible_text

MOST_BRIDGING = 5  # frames blended between two clips
RATES = (0.92, 1.08)  # frames of the film per frame of the window


def cut_anywhere(parts: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """75 frames from a random place of the parts joined, a little faster or slower than they were.

    Of a word that an edge cuts, the characters stay whose middle lies inside.
    """
    film = join_parts(parts, rng)
    n_frames = len(film.slots)
    rate = rng.uniform(*RATES)
    start = rng.uniform(0, max(n_frames - N_FRAMES * rate, 0))
    wander = np.interp(np.arange(N_FRAMES), np.linspace(0, N_FRAMES - 1, 8), rng.uniform(-1, 1, 8))
    at = np.clip(np.rint(start + np.arange(N_FRAMES) * rate + wander), 0, n_frames - 1).astype(np.int64)
    window = take_frames(film, np.maximum.accumulate(at))
    return replace(window, text=visible_text(window.words, window.slots, window.within))


def join_parts(parts: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """The parts one after another as one long sample, the pauses between them cut to random lengths."""
    kept = [shorten(part, rng, is_first=i == 0, is_last=i == len(parts) - 1) for i, part in enumerate(parts)]
    film = kept[0]
    for part in kept[1:]:
        film = append(film, part, int(rng.integers(0, MOST_BRIDGING + 1)))
    return film


def shorten(part: Sample, rng: np.random.Generator, *, is_first: bool, is_last: bool) -> Sample:
    """A part without some of the silence before and after its words; none is cut where the film begins or ends."""
    said = np.flatnonzero(part.slots != BETWEEN_WORDS)
    first, end = int(said[0]), int(said[-1]) + 1
    start = 0 if is_first else int(rng.integers(0, first + 1))
    stop = len(part.slots) if is_last else int(rng.integers(end, len(part.slots) + 1))
    return take_frames(part, np.arange(start, stop))


def append(film: Sample, part: Sample, n_between: int) -> Sample:
    """A film and a part after it, with some frames between that lead from the one to the other."""
    shares = (np.arange(1, n_between + 1) / (n_between + 1)).astype(np.float32)
    numbers = np.where(part.slots == BETWEEN_WORDS, BETWEEN_WORDS, part.slots + len(film.words))
    return Sample(
        frames=np.concatenate([film.frames, blend(film.frames[-1], part.frames[0], shares), part.frames]),
        lips=np.concatenate([film.lips, blend(film.lips[-1], part.lips[0], shares), part.lips]),
        slots=np.concatenate([film.slots, np.full(n_between, BETWEEN_WORDS), numbers]),
        within=np.concatenate([film.within, np.zeros(n_between, np.float32), part.within]),
        words=film.words + part.words,
        text=f"{film.text} {part.text}",
    )


def blend(before: Bytes, after: Bytes, shares: Floats) -> Bytes:
    """(n, ...) pictures, or what was made of them, that hold so much of the later one."""
    weights = shares.reshape(-1, *[1] * before.ndim)
    between = before * (1 - weights) + after * weights
    return (np.rint(between) if before.dtype == np.uint8 else between).astype(before.dtype)
