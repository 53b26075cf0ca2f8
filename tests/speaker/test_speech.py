from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from inference.errors import InvalidRequest
from inference.rendering.mouth_shape import MouthShape
from inference.speaker.lexicon import PRONUNCIATIONS, words_of
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.visemes import VISEMES

SENTENCE = "BIN BLUE AT F TWO NOW"
TIMES = np.arange(75) / 25


def shapes_of(text: str, seed: int = 3) -> np.ndarray:
    return np.stack([mouth.row() for mouth in SynthesisedSpeech(text, seed).mouth_shapes(TIMES)])


def test_every_grid_word_has_a_pronunciation():
    assert len(PRONUNCIATIONS) == 51
    assert {phoneme for sounds in PRONUNCIATIONS.values() for phoneme in sounds.split()} <= set(VISEMES)


def test_words_are_cleaned_and_unknown_ones_named():
    assert words_of(" bin Blue, at f two now. ") == tuple(SENTENCE.split())
    with pytest.raises(InvalidRequest, match="HELLO, WORLD"):
        words_of("hello world")
    with pytest.raises(InvalidRequest, match="no words"):
        words_of("  ... ")
    with pytest.raises(InvalidRequest, match="601 words"):
        words_of("now " * 601)


def test_words_follow_one_another_within_the_clip():
    speech = SynthesisedSpeech(SENTENCE, 5)
    words = speech.timed_words()
    assert [one.word for one in words] == SENTENCE.split()
    assert speech.length_s == 3.0
    assert words[0].start_s >= 0.2
    assert words[-1].end_s <= 2.8
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(words))
    assert all(0.05 < one.end_s - one.start_s < 0.8 for one in words)


def test_several_sentences_make_a_longer_clip_with_a_pause():
    speech = SynthesisedSpeech(f"{SENTENCE} {SENTENCE}", 5)
    words = speech.timed_words()
    assert speech.length_s > 3.5
    assert words[6].start_s - words[5].end_s == pytest.approx(0.45)


def test_a_length_is_kept_or_rejected():
    assert SynthesisedSpeech(SENTENCE, 5, 7.5).length_s == 7.5
    with pytest.raises(InvalidRequest, match=re.escape("1 s was requested")):
        SynthesisedSpeech(SENTENCE, 5, 1.0)
    with pytest.raises(InvalidRequest, match="nan"):
        SynthesisedSpeech(SENTENCE, 5, float("nan"))
    with pytest.raises(InvalidRequest, match="600"):
        SynthesisedSpeech(SENTENCE, 5, 1e9)


def test_the_mouth_rests_before_and_after():
    shapes = shapes_of(SENTENCE)
    words = SynthesisedSpeech(SENTENCE, 3).timed_words()
    quiet = (words[0].start_s - 0.15 > TIMES) | (words[-1].end_s + 0.15 < TIMES)
    assert quiet.sum() > 5
    assert np.abs(shapes[quiet]).max() < 0.02
    assert shapes[~quiet, 0].max() > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_lips_close_for_b_tuck_for_f_and_round_for_blue(seed: int):
    speech = SynthesisedSpeech(SENTENCE, seed)

    def mouth_in(phoneme: str, word: int) -> MouthShape:
        (phone,) = (one for one in speech.phones if (one.phoneme, one.word) == (phoneme, word))
        return speech.mouth_shapes(np.array([(phone.start_s + phone.end_s) / 2]))[0]

    closed = mouth_in("B", 0)
    assert closed.press > 0.85
    assert closed.open < 0.15
    assert mouth_in("F", 3).tuck > 0.85
    assert mouth_in("UW", 1).round > 0.85
    assert mouth_in("AE", 2).open > 0.9


@pytest.mark.parametrize(("one", "other"), [("B", "P"), ("D", "T")])
def test_homophenes_look_alike(one: str, other: str):
    a, b = (shapes_of(f"BIN BLUE AT {letter} TWO NOW") for letter in (one, other))
    assert np.array_equal(a, b)


def test_words_that_differ_look_different():
    for other in ("LAY BLUE AT F TWO NOW", "BIN BLUE AT B TWO NOW"):
        assert np.abs(shapes_of(SENTENCE) - shapes_of(other)).max() > 0.3


def test_the_mouth_moves_without_jumps():
    speech = SynthesisedSpeech(SENTENCE, 9)
    fine = np.stack([mouth.row() for mouth in speech.mouth_shapes(np.arange(0, 3, 0.002))])
    assert np.abs(np.diff(fine, axis=0)).max() < 0.08


def test_the_mouth_does_not_depend_on_the_frame_rate():
    speech = SynthesisedSpeech(SENTENCE, 9)
    slow, fast = speech.mouth_shapes(np.arange(0, 3, 0.04)), speech.mouth_shapes(np.arange(0, 3, 0.02))
    assert fast[::2] == slow
