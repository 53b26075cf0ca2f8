from __future__ import annotations

import json
import random

import jiwer
import pytest

from inference.lip_reading.evaluation import N_BINS, TranscribedClip, align_sequences, edit_distance, score_clips
from inference.lip_reading.options import Word


def clip(said: str, read: str, confidence: float = 0.5, speaker: str = "") -> TranscribedClip:
    words = tuple(Word(word, 0.0, 1.0, confidence) for word in read.split())
    return TranscribedClip(said, read, words, speaker)


RIGHT = clip("BIN BLUE AT F TWO NOW", "BIN BLUE AT F TWO NOW", 0.95)


def test_words_are_aligned():
    said, read = ["BIN", "BLUE", "AT", "F"], ["BLUE", "AT", "NOW", "S"]
    assert align_sequences(said, read) == [("BIN", None), ("BLUE", "BLUE"), ("AT", "AT"), (None, "NOW"), ("F", "S")]
    assert align_sequences([], ["A"]) == [(None, "A")]
    assert align_sequences("AB", "") == [("A", None), ("B", None)]


def test_error_rates_equal_those_of_jiwer():
    rng = random.Random(1)
    texts = [" ".join(rng.choices(["A", "BIN", "BLUE", "NINE"], k=rng.randrange(1, 7))) for _ in range(60)]
    clips = [clip(said, read) for said, read in zip(texts[:30], texts[30:], strict=True)]
    found = score_clips(clips)
    assert found.wer == pytest.approx(jiwer.wer(texts[:30], texts[30:]))
    assert found.cer == pytest.approx(jiwer.cer(texts[:30], texts[30:]))


def test_the_edit_distance_is_that_of_the_alignment():
    rng = random.Random(2)
    for _ in range(200):
        reference, hypothesis = (rng.choices("ABC", k=rng.randrange(8)) for _ in range(2))
        assert edit_distance(reference, hypothesis) == sum(a != b for a, b in align_sequences(reference, hypothesis))


def test_an_empty_hypothesis_is_all_wrong():
    found = score_clips([clip("BIN BLUE", "")])
    assert (found.wer, found.cer, found.n_sentences_right) == (1, 1, 0)
    assert found.reliability.n_words == 0
    assert found.reliability.area_under_roc is None


def test_slots_and_letters_count_only_grid_sentences():
    found = score_clips([RIGHT, clip("SET RED IN P SIX SOON", "SET IN B SIX SOON"), clip("HELLO", "BIN")])
    assert found.slots == {
        "command": 1.0,
        "colour": 0.5,
        "preposition": 1.0,
        "letter": 0.5,
        "digit": 1.0,
        "adverb": 1.0,
    }
    assert found.letters == (("F", "F", 1), ("P", "B", 1))
    assert score_clips([clip("HELLO", "BIN")]).slots == {}


def test_a_missing_letter_is_a_dash():
    assert score_clips([clip("SET RED IN P SIX SOON", "SET RED IN SIX SOON")]).letters == (("P", "-", 1),)


def test_speakers_are_scored_if_there_are_several():
    clips = [clip("BIN", "BIN", speaker="s1"), clip("BIN", "SET", speaker="s2")]
    assert score_clips(clips).speakers == {"s1": 0.0, "s2": 1.0}
    assert score_clips(clips[:1]).speakers == {}


def test_reliability_by_hand():
    words = (Word("BIN", 0, 1, 0.9), Word("RED", 0, 1, 0.7), Word("AT", 0, 1, 1.0), Word("F", 0, 1, 0.7))
    found = score_clips([TranscribedClip("BIN BLUE AT F", "BIN RED AT F", words)]).reliability
    assert (found.n_words, found.n_right) == (4, 3)
    # Right words score .9, 1 and .7, the wrong one .7: two above it and a tie.
    assert found.area_under_roc == pytest.approx((1 + 1 + 0.5) / 3)
    # Bins: two words at .7, one of them right; two from .9 on, both right, .95 on average.
    assert found.expected_error == pytest.approx((2 * 0.2 + 2 * 0.05) / 4)
    assert len(found.bins) == N_BINS
    assert [(one.low, one.n_words) for one in found.bins if one.n_words] == [(0.7, 2), (0.9, 2)]


def test_an_inserted_word_is_wrong():
    found = score_clips([clip("BIN", "BIN BIN")]).reliability
    assert (found.n_words, found.n_right) == (2, 1)


def test_scores_become_plain_values():
    found = json.loads(json.dumps(score_clips([RIGHT]).as_dict(), default=vars, allow_nan=False))
    assert found["wer"] == 0
    assert found["letters"] == [["F", "F", 1]]
    assert found["reliability"]["bins"][0]["confidence"] is None
    assert found["reliability"]["bins"][9]["n_words"] == 6
