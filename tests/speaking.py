"""Frames of the project's own synthetic speaker, drawn once per run."""

from __future__ import annotations

from functools import cache

import numpy as np

from inference.speaker import SyntheticClip, SyntheticClipOptions

SENTENCE = "BIN BLUE AT F TWO NOW"
SEED = 3
FPS = 25


def talk(n_frames: int, width: int = 360, height: int = 288) -> list[np.ndarray]:
    """Frames of somebody talking without a pause longer than between sentences, at 25 fps: (H, W, 3) uint8 BGR."""
    drawn = draw(width, height)
    return [drawn[i % len(drawn)].copy() for i in range(n_frames)]


@cache
def draw(width: int, height: int) -> tuple[np.ndarray, ...]:
    """Two sentences from the first word to the last."""
    film = SyntheticClip(f"{SENTENCE} {SENTENCE}", SEED, SyntheticClipOptions(width=width, height=height))
    words = film.speech.timed_words()
    spoken = range(int(words[0].start_s * FPS), int(words[-1].end_s * FPS))
    return tuple(shot.frame for i, shot in enumerate(film.shots()) if i in spoken)
