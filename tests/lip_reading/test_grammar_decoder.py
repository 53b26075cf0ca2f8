"""GRID sentences decoded from logits, against values worked out by hand or by plain CTC."""

from itertools import pairwise

import numpy as np
import pytest

from inference.lip_reading.calibration import Calibration, read_calibration
from inference.lip_reading.grammar_decoder import (
    GRID,
    N_PREFIX_SLOTS,
    combine_alternatives,
    compute_posterior,
    cut_segments,
    grid_lattice,
    read_grammar,
    slot_posteriors,
)
from inference.lip_reading.greedy_decoder import FIRST_SYMBOL, SYMBOLS, log_softmax
from inference.lip_reading.lattice import compute_sentence_weights, find_best_path
from inference.lip_reading.options import Alternative

FPS = 25.0
UNCALIBRATED = Calibration()
SENTENCE = "--B-I-N-- BL-UE-- AT- F-- TWO--- N-O-W-----"


def logits_for(frames: str, sure: float = 9.0, seed: int = 0) -> np.ndarray:
    """Return logits that emit characters, plus a little noise; '-' is the blank."""
    logits = np.random.default_rng(seed).normal(0, 0.5, (len(frames), 28)).astype(np.float32)
    logits[np.arange(len(frames)), [label(c) for c in frames]] += sure
    return logits


def label(character: str) -> int:
    return 0 if character == "-" else SYMBOLS.index(character) + FIRST_SYMBOL


def ctc_log_likelihood(text: str, log_p: np.ndarray) -> float:
    """Run Graves' forward algorithm for one text: a slow and plain reference."""
    labels = [0]
    for character in text:
        labels += [label(character), 0]
    alpha = np.full(len(labels), -np.inf)
    alpha[:2] = log_p[0, labels[:2]]
    for row in log_p[1:]:
        before = alpha.copy()
        for s in range(len(labels)):
            ways = [before[s], *before[max(s - 1, 0) : s]]
            if s > 1 and labels[s] not in (0, labels[s - 2]):
                ways.append(before[s - 2])
            alpha[s] = np.logaddexp.reduce(ways) + row[labels[s]]
    return float(np.logaddexp(alpha[-1], alpha[-2]))


@pytest.mark.parametrize("sure", [1.0, 6.0, 40.0])
def test_sentence_weights_equal_ctc(sure: float):
    frames = "-B-I-NN -BLLUE-- AT- F-- TT-WO-- N-O-W-"
    log_p = log_softmax(logits_for(frames, sure).astype(np.float64))
    # The lattice accepts spaces more freely than plain CTC; here only five frames can be one, each alone.
    log_p[[c != " " for c in frames], label(" ")] = -1e9
    labels = [label(c) for c in frames]
    best = log_p[np.arange(len(frames)), labels]
    weights = compute_sentence_weights(GRID, N_PREFIX_SLOTS, np.exp(log_p - best[:, None]))
    for text in ("BIN BLUE AT F TWO NOW", "BIN BLUE AT S TWO NOW", "SET BLUE BY F TWO NOW"):
        at = tuple(words.index(word) for words, word in zip(GRID, text.split(), strict=True))
        assert np.log(weights[at]) + best.sum() == pytest.approx(ctc_log_likelihood(text, log_p), abs=1e-6)


def test_a_whole_sentence_is_decoded():
    reading = read_grammar(logits_for(SENTENCE), FPS, 3, UNCALIBRATED)
    assert reading.text == "BIN BLUE AT F TWO NOW"
    assert [word.word for word in reading.words] == reading.text.split()
    assert reading.alternatives[0].text == reading.text
    assert reading.alternatives[0].confidence > 0.9
    assert reading.confidence > 0.9


@pytest.mark.parametrize("text", ["LAY GREEN IN B THREE SOON", "PLACE GREEN WITH A THREE PLEASE"])
def test_double_letters_are_decoded(text: str):
    apart = "-".join(text)
    assert read_grammar(logits_for(apart), FPS, 1, UNCALIBRATED).text == text
    run_together = text.replace("EE", "E-E").replace("OO", "O-O")  # the only blanks in the text
    assert read_grammar(logits_for(run_together), FPS, 1, UNCALIBRATED).text == text


def test_a_wrong_character_is_corrected():
    assert read_grammar(logits_for("--BEN- -BLU-- AT- F-- TVO--- N-O-W---"), FPS, 1, UNCALIBRATED).text == (
        "BIN BLUE AT F TWO NOW"
    )


def test_posteriors_of_each_slot_sum_to_one():
    log_p = log_softmax(logits_for(SENTENCE, sure=2.0).astype(np.float64))
    path = find_best_path(grid_lattice(), log_p)
    (segment,) = cut_segments(path)
    slots = slot_posteriors(compute_posterior(log_p, path, segment).posteriors)
    assert [len(slot) for slot in slots] == [4, 4, 4, 25, 10, 4]
    for slot in slots:
        assert (slot >= 0).all()
        assert slot.sum() == pytest.approx(1, abs=1e-9)


def test_two_equally_likely_letters_share_the_posterior():
    logits = logits_for(SENTENCE.replace("F", "-"))
    at = SENTENCE.index("F")
    logits[at, [label("F"), label("S")]] = 20.0
    reading = read_grammar(logits, FPS, 2, UNCALIBRATED)
    assert {one.text.split()[3] for one in reading.alternatives} == {"F", "S"}
    assert [one.confidence for one in reading.alternatives] == pytest.approx([0.5, 0.5], abs=0.02)
    sure = [word.confidence for word in reading.words]
    assert min(range(6), key=lambda i: sure[i]) == 3


@pytest.mark.parametrize("logits", [np.zeros((75, 28)), logits_for("-" * 75), logits_for(" - " * 25)])
def test_silence_decodes_to_no_words(logits: np.ndarray):
    reading = read_grammar(logits.astype(np.float32), FPS, 5, UNCALIBRATED)
    assert (reading.text, reading.words, reading.confidence, reading.alternatives) == ("", (), 0.0, ())


@pytest.mark.parametrize("n_frames", [1, 5, 16])
def test_too_few_frames_decode_to_no_words(n_frames: int):
    assert read_grammar(logits_for(SENTENCE[:n_frames]), FPS, 5, UNCALIBRATED).text == ""


def test_sentences_follow_one_another():
    second = "LAY RED BY Q FOUR SOON"
    frames = SENTENCE + "-" * 60 + " " + "-".join(second) + " " + SENTENCE
    reading = read_grammar(logits_for(frames), FPS, 4, UNCALIBRATED)
    assert reading.text == f"BIN BLUE AT F TWO NOW {second} BIN BLUE AT F TWO NOW"
    assert [len(one.text.split()) for one in reading.alternatives] == [18] * 4
    times = [(word.start, word.end) for word in reading.words]
    assert all(start < end for start, end in times)
    assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(times))
    assert times[0][0] >= 0
    assert times[-1][1] <= len(frames) / FPS


def test_segments_meet_in_the_middle_of_the_pause():
    frames = SENTENCE + " " + "-" * 50 + SENTENCE
    path = find_best_path(grid_lattice(), log_softmax(logits_for(frames).astype(np.float64)))
    first, second = cut_segments(path)
    assert (first.speech_start, first.speech_end) == (SENTENCE.index("B"), SENTENCE.index("W---") + 1)
    assert second.speech_start == len(SENTENCE) + 51 + SENTENCE.index("B")
    assert first.start == 0
    assert first.end == second.start == (first.speech_end + second.speech_start) // 2
    assert second.end == len(frames)


def test_segments_reach_three_seconds_into_a_long_pause():
    frames = "-" * 500 + SENTENCE + " " + "-" * 500
    (segment,) = cut_segments(find_best_path(grid_lattice(), log_softmax(logits_for(frames).astype(np.float64))))
    assert (segment.speech_start - segment.start, segment.end - segment.speech_end) == (75, 75)


def confidence_with(noise: float) -> float:
    logits = logits_for(SENTENCE)
    logits += np.random.default_rng(1).normal(0, noise, logits.shape).astype(np.float32)
    return read_grammar(logits, FPS, 1, UNCALIBRATED).confidence


def test_confidence_falls_as_noise_grows():
    falling = [confidence_with(noise) for noise in (0.0, 2.0, 4.0, 8.0)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > 0.9
    assert falling[-1] < 0.3


def test_agreement_is_the_share_of_the_grammar():
    def agreement(frames: str, sure: float) -> float:
        log_p = log_softmax(logits_for(frames, sure).astype(np.float64))
        path = find_best_path(grid_lattice(), log_p)
        (segment,) = cut_segments(path)
        return compute_posterior(log_p, path, segment).agreement

    assert agreement(SENTENCE, 40.0) == pytest.approx(0, abs=1e-3)
    assert -10 < agreement(SENTENCE, 9.0) < 0
    assert agreement(SENTENCE, 5.0) < agreement(SENTENCE, 9.0)  # unsure
    assert agreement(SENTENCE.replace("TWO", "TVO"), 9.0) < agreement(SENTENCE, 9.0) - 5  # confident of something else


def test_speech_outside_the_grammar_has_low_confidence():
    """Clear letters outside the grammar: unconstrained decoding finds them, the lattice cannot."""
    out_of_grammar = "--THE- -QUICK- BROWN- -FOX- JUM-PS- OVER- THE- -LAZY- DOGS--"
    reading = read_grammar(logits_for(out_of_grammar), FPS, 1, UNCALIBRATED)
    assert reading.confidence < 0.2


def test_words_apart_from_all_sentences_lower_the_confidence():
    alone = read_grammar(logits_for(SENTENCE + " " + "-" * 60), FPS, 1, UNCALIBRATED)
    with_more = read_grammar(logits_for(SENTENCE + " " + "-" * 40 + "-QUV- ZXV-" + "-" * 10), FPS, 1, UNCALIBRATED)
    assert with_more.text == alone.text
    assert with_more.confidence == pytest.approx(alone.confidence * 6 / 8, abs=0.01)


def test_the_best_combinations_by_hand():
    first = [Alternative("A", 0.6), Alternative("B", 0.4)]
    second = [Alternative("C", 0.7), Alternative("D", 0.3)]
    assert combine_alternatives([first, second], 3) == (
        Alternative("A C", 0.42),
        Alternative("B C", 0.28),
        Alternative("A D", 0.18),
    )
    assert combine_alternatives([], 3) == ()


def test_time_grows_linearly_with_the_length():
    """No cost grows with the square of the length; a sentence in ten minutes of silence is found."""
    frames = "-" * 14_000 + SENTENCE + "-" * 1_000
    reading = read_grammar(logits_for(frames), FPS, 1, UNCALIBRATED)
    assert reading.text == "BIN BLUE AT F TWO NOW"
    assert reading.words[0].start == pytest.approx(14_000 / FPS, abs=1.0)


def test_a_calibration_applies_to_its_own_weights_only():
    shifts = [0.1] * 7
    card = {
        "calibration": {
            "sha256": "ab", "bias": 1.0, "posterior": 2.0, "agreement": 3.0, "shift_s": shifts, "spread_s": shifts
        }
    }  # fmt: skip
    assert read_calibration(card, "ab") == Calibration(1.0, 2.0, 3.0, tuple(shifts), tuple(shifts))
    assert read_calibration(card, "cd") == read_calibration({}, "ab") == Calibration()


def test_confidence_by_hand():
    sure = Calibration(bias=-1.0, posterior=0.5, agreement=0.2)
    assert sure.confidence(0.5, 0.0) == pytest.approx(1 / (1 + np.e))
    assert sure.confidence(0.5, -5.0) == pytest.approx(1 / (1 + np.e**2))
    assert sure.confidence(1.0, 0.0) < 1
