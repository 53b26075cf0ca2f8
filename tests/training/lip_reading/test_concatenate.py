from __future__ import annotations

import numpy as np
import pytest

from inference.lip_reading.greedy_decoder import SYMBOLS
from training.common.mouth_packs import BETWEEN_WORDS, place_words
from training.lip_reading.augmentation import MouthSample
from training.lip_reading.concatenate import append, concatenate, cut_window
from training.lip_reading.targets import NO_TARGET, spread_characters, visible_text

ONE, OTHER = "BIN BLUE AT F TWO NOW", "SET RED IN Q SIX SOON"


def make_sample(text: str, level: int) -> MouthSample:
    """Return a grey clip of even brightness, with six words from frame 8 to 68."""
    word_indices, word_progress = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    frames = np.full((75, 64, 128, 3), level, np.uint8)
    lips = np.full((75, 20, 2), level / 255, np.float32)
    return MouthSample(frames, lips, word_indices, word_progress, tuple(text.split()), text)


def test_a_word_cut_by_an_edge_keeps_the_characters_inside():
    word_indices, word_progress = place_words(np.array([0.0, 6.0, 12.0]), np.array([6.0, 8.0, 20.0]))
    words = ("BIN", "AT", "BLUE")
    assert visible_text(words, word_indices[:20], word_progress[:20]) == "BIN AT BLUE"
    assert visible_text(words, word_indices[2:17], word_progress[2:17]) == "IN AT BL"
    assert visible_text(words, word_indices[5:7], word_progress[5:7]) == "A"  # past the middle of N
    assert visible_text(words, word_indices[20:], word_progress[20:]) == ""


def test_word_indices_continue_in_an_appended_part():
    joined = append(make_sample(ONE, 60), make_sample(OTHER, 120), 2)
    assert joined.text == f"{ONE} {OTHER}"
    assert len(joined.frames) == len(joined.lips) == len(joined.word_indices) == len(joined.word_progress) == 152
    assert joined.word_indices[[8, 67, 75, 76, 77 + 8, 77 + 67]].tolist() == [0, 5, BETWEEN_WORDS, BETWEEN_WORDS, 6, 11]
    assert joined.frames[[75, 76], 0, 0, 0].tolist() == [80, 100]
    assert joined.lips[75, 0, 0] == pytest.approx(80 / 255)


@pytest.mark.parametrize("seed", range(5))
def test_concatenated_parts_keep_every_word_and_lose_only_silence(seed: int):
    joined = concatenate([make_sample(ONE, 60), make_sample(OTHER, 120)], np.random.default_rng(seed))
    assert np.bincount(joined.word_indices + 1)[1:].tolist() == [10] * 12
    assert (joined.word_indices[:8] == BETWEEN_WORDS).all()
    assert (joined.word_indices[-7:] == BETWEEN_WORDS).all()
    assert 75 + 60 <= len(joined.word_indices) <= 150 + 5


@pytest.mark.parametrize("seed", range(20))
def test_a_window_has_the_text_of_its_frames(seed: int):
    parts = [make_sample(ONE, 60), make_sample(OTHER, 120), make_sample(ONE, 180)]
    window = cut_window(parts, np.random.default_rng(seed))
    assert window.frames.shape == (75, 64, 128, 3)
    assert window.lips.shape == (75, 20, 2)
    assert window.text.replace(" ", "") in f"{ONE} {OTHER} {ONE}".replace(" ", "")
    targets = spread_characters(window.words, window.word_indices, window.word_progress)
    spread = {SYMBOLS[target] for target in targets if target != NO_TARGET}
    assert spread >= set(window.text) - {" "} - set(window.text[:1]) - set(window.text[-1:])
    repeated = cut_window(parts, np.random.default_rng(seed))
    assert np.array_equal(window.frames, repeated.frames)
    assert window.text == repeated.text
