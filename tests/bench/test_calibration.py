import json
from pathlib import Path

import numpy as np
import pytest

from bench.calibration import (
    UNCHANGED,
    ClipLogits,
    decode_sentences,
    fit,
    fit_logistic,
    read_clips_to_fit,
    read_word_times,
    robust_deviations,
    write_card,
)
from bench.clip_table import LabelledClip
from inference.lip_reading.calibration import Calibration, read_calibration
from inference.lip_reading.greedy_decoder import FIRST_SYMBOL, SYMBOLS

FRAMES = "-----BIN-- BLUE- AT- F--- TWO-- NOW-----"
STARTS = [FRAMES.index(word) / 25 for word in ("BIN", "BLUE", "AT", "F-", "TWO", "NOW")]
END = (FRAMES.index("NOW") + 3) / 25


def make_clip(transcript: str, variant: str = UNCHANGED, peak: float = 9.0, name: str = "a.mpg") -> ClipLogits:
    """Return logits of FRAMES, for any transcript. peak: logit of the decoded symbol; the others are 0."""
    logits = np.zeros((len(FRAMES), 28), np.float32)
    labels = [0 if c == "-" else SYMBOLS.index(c) + FIRST_SYMBOL for c in FRAMES]
    logits[np.arange(len(FRAMES)), labels] = peak
    return ClipLogits(LabelledClip(Path(name), "s1", transcript), variant, logits)


def test_logistic_regression_recovers_the_coefficients_of_the_data():
    rng = np.random.default_rng(0)
    features = np.stack([np.ones(20_000), rng.normal(0, 2, 20_000)], axis=1)
    correct = (rng.random(20_000) < 1 / (1 + np.exp(-features @ [-1.0, 0.5]))).astype(float)
    assert fit_logistic(features, correct, np.ones(20_000)) == pytest.approx([-1.0, 0.5], abs=0.05)


def test_samples_of_weight_zero_are_ignored():
    features = np.ones((4, 1))
    odds = fit_logistic(features, np.array([1.0, 1, 1, 0]), np.array([100.0, 100, 100, 100]))
    assert odds == pytest.approx([np.log(3)], abs=0.01)
    assert fit_logistic(features, np.array([1.0, 1, 1, 0]), np.array([100.0, 0, 0, 100])) == pytest.approx(
        [0], abs=0.01
    )


def test_clips_of_speakers_that_are_left_out_are_not_fitted_on(tmp_path: Path):
    rows = [f"{speaker}.mpg,{speaker},BIN BLUE AT F TWO NOW" for speaker in ("s1", "s2", "s20")]
    for speaker in ("s1", "s2", "s20"):
        (tmp_path / f"{speaker}.mpg").touch()
    (tmp_path / "clips.csv").write_text("\n".join(["file,speaker,transcript", *rows]) + "\n")
    assert [clip.speaker for clip in read_clips_to_fit(tmp_path / "clips.csv", ["s2"])] == ["s1", "s20"]


def test_the_deviation_is_that_of_a_gaussian_without_its_outliers():
    shifts = np.random.default_rng(0).normal(0.3, 0.05, (5000, 7))
    shifts[:100] = 9.0
    shifts[100:200] = np.nan
    assert robust_deviations(shifts) == pytest.approx([0.05] * 7, rel=0.1)


def test_the_shift_of_the_alignment_is_measured_on_correct_words_only():
    times = {"a.mpg": np.array([*STARTS, END]) + 0.2}
    (found,) = decode_sentences(make_clip("BIN BLUE AT F TWO SOON"), times)
    assert found.correct.tolist() == [1, 1, 1, 1, 1, 0]
    assert found.shift_s[:5] == pytest.approx([-0.2] * 5)
    assert np.isnan(found.shift_s[5:]).all()
    (without_speech,) = decode_sentences(make_clip("BIN BLUE AT F TWO NOW", "shuffled"), times)
    assert without_speech.correct.tolist() == [0] * 6
    assert np.isnan(without_speech.shift_s).all()


def test_a_fit_lowers_the_confidence_without_speech_and_measures_the_shift():
    transcript = "BIN BLUE AT F TWO NOW"
    clips = [make_clip(transcript, name=f"{i}.mpg") for i in range(8)]
    clips += [make_clip(transcript, "shuffled", peak=1.5, name=f"{i}.mpg") for i in range(8)]
    times = {f"{i}.mpg": np.array([*STARTS, END]) + 0.1 for i in range(8)}
    found = fit(clips, times)
    assert found.shift_s == pytest.approx([-0.1] * 7)
    assert found.spread_s == pytest.approx([0] * 7, abs=1e-6)
    assert found.confidence(0.99, 0.0) > 0.8
    assert found.confidence(0.5, -60.0) < 0.2


def test_times_have_six_starts_and_an_end(tmp_path: Path):
    table = tmp_path / "words.csv"
    rows = [f"a.mpg,W{i},{i},{i + 1}" for i in range(6)]
    table.write_text("\n".join(["file,word,start_s,end_s", *rows]) + "\n")
    assert read_word_times(table)["a.mpg"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_constants_are_stored_in_the_card_of_their_weights_only(tmp_path: Path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "x", "sha256": "ab"}))
    measured = Calibration(-1.0, 0.25, 0.5, (0.1,) * 7, (0.2,) * 7)
    with pytest.raises(SystemExit, match="SHA-256 ab, but cd were measured"):
        write_card(card, measured, "cd")
    write_card(card, measured, "ab")
    written = json.loads(card.read_text())
    assert written["name"] == "x"
    assert read_calibration(written, "ab") == measured
