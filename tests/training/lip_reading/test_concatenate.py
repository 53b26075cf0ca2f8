from __future__ import annotations

import numpy as np
import pytest

from inference.lip_reading.decode import SYMBOLS
from training.lip_reading.augmentation import Sample
from training.lip_reading.concatenate import append, cut_anywhere, join_parts
from training.lip_reading.mouth_packs import BETWEEN_WORDS, NO_TARGET, place_words, spread_characters, visible_text

ONE, OTHER = "BIN BLUE AT F TWO NOW", "SET RED IN Q SIX SOON"


def sample_of(text: str, level: int) -> Sample:
    """A grey clip of even brightness, its six words from frame 8 to 68."""
    slots, within = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    frames = np.full((75, 64, 128, 3), level, np.uint8)
    lips = np.full((75, 20, 2), level / 255, np.float32)
    return Sample(frames, lips, slots, within, tuple(text.split()), text)


def test_a_word_that_the_edge_cuts_keeps_the_characters_inside_by_hand():
    slots, within = place_words(np.array([0.0, 6.0, 12.0]), np.array([6.0, 8.0, 20.0]))
    words = ("BIN", "AT", "BLUE")
    assert visible_text(words, slots[:20], within[:20]) == "BIN AT BLUE"
    assert visible_text(words, slots[2:17], within[2:17]) == "IN AT BL"
    assert visible_text(words, slots[5:7], within[5:7]) == "A"  # past the middle of N
    assert visible_text(words, slots[20:], within[20:]) == ""


def test_parts_follow_one_another_with_their_words_numbered_on():
    film = append(sample_of(ONE, 60), sample_of(OTHER, 120), 2)
    assert film.text == f"{ONE} {OTHER}"
    assert len(film.frames) == len(film.lips) == len(film.slots) == len(film.within) == 152
    assert film.slots[[8, 67, 75, 76, 77 + 8, 77 + 67]].tolist() == [0, 5, BETWEEN_WORDS, BETWEEN_WORDS, 6, 11]
    assert film.frames[[75, 76], 0, 0, 0].tolist() == [80, 100]
    assert film.lips[75, 0, 0] == pytest.approx(80 / 255)


@pytest.mark.parametrize("seed", range(5))
def test_joined_parts_keep_every_word_and_lose_silence_alone(seed: int):
    film = join_parts([sample_of(ONE, 60), sample_of(OTHER, 120)], np.random.default_rng(seed))
    assert np.bincount(film.slots + 1)[1:].tolist() == [10] * 12
    assert (film.slots[:8] == BETWEEN_WORDS).all()
    assert (film.slots[-7:] == BETWEEN_WORDS).all()
    assert 75 + 60 <= len(film.slots) <= 150 + 5


@pytest.mark.parametrize("seed", range(20))
def test_a_window_is_asked_for_what_its_frames_say(seed: int):
    parts = [sample_of(ONE, 60), sample_of(OTHER, 120), sample_of(ONE, 180)]
    window = cut_anywhere(parts, np.random.default_rng(seed))
    assert window.frames.shape == (75, 64, 128, 3)
    assert window.lips.shape == (75, 20, 2)
    assert window.text.replace(" ", "") in f"{ONE} {OTHER} {ONE}".replace(" ", "")
    targets = spread_characters(window.words, window.slots, window.within)
    spread = {SYMBOLS[target] for target in targets if target != NO_TARGET}
    assert spread >= set(window.text) - {" "} - set(window.text[:1]) - set(window.text[-1:])
    repeated = cut_anywhere(parts, np.random.default_rng(seed))
    assert np.array_equal(window.frames, repeated.frames)
    assert window.text == repeated.text
