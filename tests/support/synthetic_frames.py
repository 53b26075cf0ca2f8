"""Frames of the project's own synthetic speaker, rendered once per run."""

from __future__ import annotations

from functools import cache

import numpy as np

from inference.speaker import SyntheticClip, SyntheticClipOptions

SENTENCE = "BIN BLUE AT F TWO NOW"
SEED = 3
FPS = 25


def talk(n_frames: int, width: int = 360, height: int = 288) -> list[np.ndarray]:
    """Return frames of a person who speaks, pausing only between sentences, at 25 fps: (H, W, 3) uint8 BGR."""
    rendered = draw(width, height)
    return [rendered[i % len(rendered)].copy() for i in range(n_frames)]


@cache
def draw(width: int, height: int) -> tuple[np.ndarray, ...]:
    """Render two sentences, from the first word to the last."""
    film = SyntheticClip(f"{SENTENCE} {SENTENCE}", SEED, SyntheticClipOptions(width=width, height=height))
    words = film.speech.timed_words()
    speech_frames = range(int(words[0].start_s * FPS), int(words[-1].end_s * FPS))
    return tuple(shot.frame for i, shot in enumerate(film.frames()) if i in speech_frames)
