import json

import numpy as np
import pytest

from inference.lip_reading.greedy_decoder import SYMBOLS, decode_greedy, join_characters, words_with_times


def labels(text: str) -> np.ndarray:
    """Return the classes of characters; '-' is the blank."""
    return np.array([0 if c == "-" else SYMBOLS.index(c) + 1 for c in text], np.int64)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("", ""),
        ("-----", ""),
        ("BBIINN", "BIN"),
        ("B-B", "BB"),
        ("BIN - BLUE", "BIN BLUE"),
        (" - BIN - ", "BIN"),
        ("A - - B", "A B"),
        ("A--  --B", "A B"),
    ],
)
def test_greedy_by_hand(frames: str, text: str):
    assert join_characters(decode_greedy(labels(frames))) == text


def logits_for(frames: str, peak: float = 5.0) -> np.ndarray:
    logits = np.zeros((len(frames), 28), np.float32)
    logits[np.arange(len(frames)), labels(frames)] = peak
    return logits


def test_words_have_the_times_of_their_frames():
    frames = "--BBIN- AA-T--"
    words = words_with_times(decode_greedy(labels(frames)), logits_for(frames), fps=25)
    assert [(w.word, w.start, w.end) for w in words] == [("BIN", 0.08, 0.24), ("AT", 0.32, 0.48)]
    sure = np.exp(5) / (np.exp(5) + 27)
    assert [w.confidence for w in words] == [pytest.approx(sure, abs=1e-4)] * 2


def test_confidence_is_the_geometric_mean_of_the_peaks():
    frames = "A-B"
    logits = logits_for(frames)
    logits[2] = 0
    logits[2, labels("B")] = 1.0
    (word,) = words_with_times(decode_greedy(labels(frames)), logits, fps=25)
    high, low = np.exp(5) / (np.exp(5) + 27), np.exp(1) / (np.exp(1) + 27)
    assert word.confidence == pytest.approx(np.sqrt(high * low), abs=1e-4)


def test_a_character_counts_where_it_peaks():
    logits = logits_for("AAA", peak=1.0)
    logits[1, labels("A")] = 5.0
    (word,) = words_with_times(decode_greedy(labels("AAA")), logits, fps=25)
    assert word.confidence == pytest.approx(np.exp(5) / (np.exp(5) + 27), abs=1e-4)


def test_no_characters_have_no_words():
    assert words_with_times([], np.zeros((3, 28), np.float32), 25) == []


def test_text_equals_upstreams(shared):
    golden = json.loads((shared / "golden" / "ctc.json").read_text())
    for case in golden["cases"]:
        assert join_characters(decode_greedy(np.array(case["labels"], np.int64))) == case["text"]
    prefixes = golden["prefix_decode"]
    assert len(prefixes["strings"]) == 76
    for n, text in enumerate(prefixes["strings"]):
        assert join_characters(decode_greedy(np.array(prefixes["labels"][:n], np.int64))) == text
