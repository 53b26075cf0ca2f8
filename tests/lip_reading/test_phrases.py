"""Phrases scored by exact CTC, against an enumeration of every path."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from inference.errors import InvalidRequest
from inference.lip_reading import ReadOptions
from inference.lip_reading.greedy_decoder import SYMBOLS, decode_greedy, join_characters, log_softmax
from inference.lip_reading.options import MAX_PHRASE_CHARACTERS, MAX_PHRASES
from inference.lip_reading.phrases import read_phrase, score_phrases

CLASSES = {" ": 1, "A": 2, "B": 3}


def random_logits(n_frames: int, seed: int) -> np.ndarray:
    """Return logits whose classes other than blank, space, A and B are impossible."""
    logits = np.full((n_frames, 1 + len(SYMBOLS)), -np.inf, np.float32)
    logits[:, :4] = np.random.default_rng(seed).normal(size=(n_frames, 4), scale=2)
    return logits


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_sum_over_every_path_that_greedy_decoding_reads_so(seed: int):
    log_p = log_softmax(random_logits(6, seed).astype(np.float64))
    expected: dict[str, float] = {}
    for path in itertools.product(range(4), repeat=len(log_p)):
        text = join_characters(decode_greedy(np.array(path)))
        expected[text] = expected.get(text, 0.0) + np.exp(log_p[np.arange(len(path)), path].sum())
    phrases = ["A", "B", "AB", "BA", "AA", "A B", "AB A", "A A", "ABBA", "B A B"]
    np.testing.assert_allclose(score_phrases(log_p, phrases), np.log([expected[one] for one in phrases]), rtol=1e-9)


def test_thousands_of_frames_neither_underflow_nor_overflow():
    log_p = log_softmax(random_logits(5000, 1).astype(np.float64))
    assert np.isfinite(score_phrases(log_p, ["A B", "B"])).all()


def test_a_phrase_that_needs_more_frames_than_there_are_is_impossible():
    log_p = log_softmax(random_logits(3, 1).astype(np.float64))
    scores = score_phrases(log_p, ["AB", "AABB", "A B"])
    assert np.isfinite(scores).tolist() == [True, False, True]
    with pytest.raises(InvalidRequest, match="the video has 3 frames, too few for each of the phrases"):
        read_phrase(random_logits(3, 1), ["AABB"], 25.0, 5)


def spoken(text: str, frames_each: int = 2) -> np.ndarray:
    """Return logits that emit a text, with a blank before each character."""
    labels = [label for character in text for label in [0] * frames_each + [CLASSES[character]] * frames_each]
    return np.where(np.arange(28) == np.array(labels)[:, None], 5.0, 0.0).astype(np.float32)


def test_the_best_phrase_has_its_posterior_and_the_times_of_its_words():
    found = read_phrase(spoken("AB BA"), ("BB AA", "AB BA", "AB AA"), 25.0, 2)
    assert found.text == "AB BA"
    assert [one.text for one in found.alternatives] == ["AB BA", "AB AA"]
    assert found.alternatives[0].confidence == found.confidence > 0.9
    first, second = found.words
    assert (first.word, first.start, second.word) == ("AB", round(2 / 25, 3), "BA")
    assert first.end == second.start == round(14 / 25, 3)
    assert second.end == round(20 / 25, 3)
    assert first.confidence is not None
    assert second.confidence is not None
    assert first.confidence >= second.confidence  # AB AA has the first word, too


def test_posteriors_are_among_the_list_alone():
    logits = random_logits(6, 5)
    found = read_phrase(logits, ("A", "B"), 25.0, 5)
    assert sum(one.confidence for one in found.alternatives) == pytest.approx(1.0, abs=2e-4)
    assert read_phrase(logits, ("A",), 25.0, 5).confidence == 1.0


def test_phrases_are_normalised():
    options = ReadOptions(phrases=("set red", "Don't  stop", "SET RED", "check-in"))
    assert options.phrases == ("SET RED", "DONT STOP", "CHECK IN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": ("call 911",)}, "'9' cannot be read from lips; expected words of A to Z"),
        ({"phrases": ("  ",)}, "0 characters; expected 1 to 100"),
        ({"phrases": ("a" * (MAX_PHRASE_CHARACTERS + 1),)}, "101 characters"),
        ({"phrases": ("yes",), "decoder": "greedy"}, "expected none with phrases"),
    ],
)
def test_phrases_that_cannot_be_scored_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(InvalidRequest, match=message):
        ReadOptions(**options)


def test_too_many_phrases_are_refused():
    many = (f"{a}{b}{c}" for a, b, c in itertools.product("ABCDEFGHIJKL", repeat=3))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_PHRASES} phrases"):
        ReadOptions(phrases=tuple(many))
