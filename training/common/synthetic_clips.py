"""Rendered clips to train on: GRID sentences by the synthetic speaker."""

from __future__ import annotations

import numpy as np

from inference.lip_reading.grammar_decoder import GRID
from inference.speaker import SyntheticClip, SyntheticClipOptions

# Lower seeds are reserved for tests and measurements, so that no person is both trained on and measured.
FIRST_SEED = 1_000_000
FPS = 25.0
LENGTH_S = 3.0
FRAME_SIZES = ((360, 288), (360, 288), (360, 288), (320, 240), (480, 360), (640, 480))  # (width, height)


def draw_sentence(seed: int) -> str:
    """Draw a sentence of the GRID language; all are equally likely."""
    rng = np.random.default_rng((seed, 7))
    return " ".join(str(rng.choice(words)) for words in GRID)


def make_clip(seed: int, person: int) -> SyntheticClip:
    """Return the sentence of a seed, spoken by a person; clips of one person have frames of one size."""
    width, height = FRAME_SIZES[person % len(FRAME_SIZES)]
    options = SyntheticClipOptions(width=width, height=height, fps=FPS, length_s=LENGTH_S)
    return SyntheticClip(draw_sentence(seed), person, options)
