from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.common.mouth_packs import BETWEEN_WORDS, place_words
from training.lip_reading.augmentation import MouthSample
from training.lip_reading.splice import fit_length, match_colours, match_lips, splice_words

HEAD = "SET RED IN Q SIX SOON"
TAILS = ("BIN BLUE AT F TWO NOW", "BIN BLUE AT G ONE AGAIN", "BIN BLUE BY H FIVE PLEASE")


def make_sample(text: str, level: int, start: float = 8, word_length: float = 10) -> MouthSample:
    """Return a noisy clip whose pixels are around a level, with six words of equal length from frame `start`."""
    starts = np.arange(6) * word_length + start
    word_indices, word_progress = place_words(starts, starts + word_length)
    rng = np.random.default_rng(level)
    frames = np.clip(rng.normal(level, 8, (75, 64, 128, 3)), 0, 255).astype(np.uint8)
    lips = rng.normal(level / 255, 0.03, (75, 20, 2)).astype(np.float32)
    return MouthSample(frames, lips, word_indices, word_progress, tuple(text.split()), text)


def test_words_come_from_the_clips_in_their_places():
    tails = [make_sample(text, level) for text, level in zip(TAILS, (90, 120, 150), strict=True)]
    spliced = splice_words(make_sample(HEAD, 60), tails)
    assert spliced.text == "SET RED IN F ONE PLEASE"
    assert spliced.words == tuple(spliced.text.split())
    assert np.bincount(spliced.word_indices + 1).tolist() == [15, *[10] * 6]
    # All words are of equal length, so nothing moves; the head has the first tail's brightness.
    assert np.array_equal(spliced.frames[38:48], tails[0].frames[38:48])
    assert np.array_equal(spliced.frames[48:58], tails[1].frames[48:58])
    assert np.array_equal(spliced.lips[58:], tails[2].lips[58:])
    assert spliced.frames[:38].mean() == pytest.approx(90, abs=1)


def test_a_sentence_of_another_length_keeps_its_words():
    """Late and long words of the tails: 100 frames, of which silence is cut first."""
    tails = [make_sample(text, 90, start=3, word_length=11) for text in TAILS]
    spliced = splice_words(make_sample(HEAD, 60, start=40, word_length=5), tails)
    assert spliced.frames.shape == (75, 64, 128, 3)
    assert spliced.lips.shape == (75, 20, 2)
    assert np.bincount(spliced.word_indices + 1)[1:].tolist() == [5, 5, 5, 11, 11, 11]


@pytest.mark.parametrize(("n_before", "n_spoken", "n_after"), [(30, 40, 30), (2, 100, 3), (5, 40, 5), (0, 75, 0)])
def test_fitting_keeps_order_and_cuts_silence_first(n_before: int, n_spoken: int, n_after: int):
    word_indices = np.r_[np.full(n_before, BETWEEN_WORDS), np.zeros(n_spoken, int), np.full(n_after, BETWEEN_WORDS)]
    kept = fit_length(word_indices)
    assert len(kept) == 75
    assert (np.diff(kept) >= 0).all()
    n_kept_words = len(set(kept[word_indices[kept] == 0]))
    assert n_kept_words == min(n_spoken, 75)


def test_colours_and_lips_are_matched():
    dark, bright = make_sample(HEAD, 60), make_sample(HEAD, 180)
    wide = np.clip((bright.frames.astype(float) - 180) * 1.5 + 180, 0, 255).astype(np.uint8)
    matched = match_colours(dark.frames, wide)
    assert matched.dtype == np.uint8
    assert matched.mean() == pytest.approx(wide.mean(), abs=0.5)
    assert matched.std() == pytest.approx(wide.std(), rel=0.1)
    lips = match_lips(dark.lips, bright.lips * 1.2)
    assert lips.mean((0, 1)) == pytest.approx((bright.lips * 1.2).mean((0, 1)), abs=1e-4)
    assert lips.std((0, 1)) == pytest.approx((bright.lips * 1.2).std((0, 1)), rel=1e-3)


def test_a_word_shorter_than_a_frame_is_skipped():
    """AT vanishes between two frames: its place starts where the next word does."""
    head = make_sample(HEAD, 60)
    short = replace(head, word_indices=np.where(head.word_indices == 2, BETWEEN_WORDS, head.word_indices))
    spliced = splice_words(short, [make_sample(text, 90) for text in TAILS])
    assert np.bincount(spliced.word_indices + 1)[1:].tolist() == [10, 10, 0, 10, 10, 10]


def test_a_last_word_without_a_frame_has_none_in_the_sentence():
    cut_short = make_sample(TAILS[2], 90, start=25)  # its last word would begin with frame 75
    assert cut_short.word_indices.max() == 4
    spliced = splice_words(make_sample(HEAD, 60), [*(make_sample(text, 90) for text in TAILS[:2]), cut_short])
    assert spliced.frames.shape == (75, 64, 128, 3)
    assert spliced.word_indices.max() == 4
