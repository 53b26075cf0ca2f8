from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.common.mouth_packs import place_words
from training.lip_reading.augmentation import MouthSample
from training.lip_reading.disguise import bend_frames, disguise

TEXT = "SET RED IN Q SIX SOON"


def make_sample(level: int) -> MouthSample:
    """Return a clip of smooth noise around a level, and lip points around a share of it."""
    rng = np.random.default_rng(level)
    starts = np.arange(6) * 10.0 + 8
    coarse = rng.normal(level, 20, (75, 8, 16, 3)).clip(0, 255)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    lips = rng.normal(level / 255, 0.03, (75, 20, 2)).astype(np.float32)
    return MouthSample(frames, lips, *place_words(starts, starts + 10), tuple(TEXT.split()), TEXT)


def test_a_disguised_clip_has_the_colours_and_lip_positions_of_the_other_and_its_own_words():
    sample, other = make_sample(90), replace(make_sample(160), text="BIN BLUE AT F TWO NOW")
    changed = disguise(sample, other, np.random.default_rng(0))
    assert changed.frames.mean() == pytest.approx(other.frames.mean(), abs=3)
    assert changed.lips.mean((0, 1)) == pytest.approx(other.lips.mean((0, 1)), abs=1e-4)
    assert (changed.text, changed.words) == (TEXT, sample.words)
    assert np.array_equal(changed.word_indices, sample.word_indices)


def test_all_frames_are_bent_alike_and_differently_each_time():
    held = make_sample(90).frames[:1].repeat(75, axis=0)
    bent, again = (bend_frames(held, np.random.default_rng(seed)) for seed in (0, 1))
    assert bent.shape == held.shape
    assert np.array_equal(bent[0], bent[74])
    assert not np.array_equal(bent[0], held[0])
    assert not np.array_equal(bent[0], again[0])
