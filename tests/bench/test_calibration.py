import json
from pathlib import Path

import numpy as np
import pytest

from bench.calibration import (
    AS_IT_IS,
    Sample,
    area_under_roc,
    fit,
    fit_logistic,
    read_sample,
    read_times,
    spread_of,
    write_card,
)
from bench.clips import SpokenClip
from inference.lip_reading.calibration import Calibration, from_card
from inference.lip_reading.decode import FIRST_SYMBOL, SYMBOLS

FRAMES = "-----BIN-- BLUE- AT- F--- TWO-- NOW-----"
STARTS = [FRAMES.index(word) / 25 for word in ("BIN", "BLUE", "AT", "F-", "TWO", "NOW")]
END = (FRAMES.index("NOW") + 3) / 25


def sample(transcript: str, kind: str = AS_IT_IS, sure: float = 9.0, name: str = "a.mpg") -> Sample:
    """The same logits, whatever the transcript says was said."""
    logits = np.zeros((len(FRAMES), 28), np.float32)
    labels = [0 if c == "-" else SYMBOLS.index(c) + FIRST_SYMBOL for c in FRAMES]
    logits[np.arange(len(FRAMES)), labels] = sure
    return Sample(SpokenClip(Path(name), "s1", transcript), kind, logits)


def test_logistic_regression_finds_what_made_the_data():
    rng = np.random.default_rng(0)
    features = np.stack([np.ones(20_000), rng.normal(0, 2, 20_000)], axis=1)
    right = (rng.random(20_000) < 1 / (1 + np.exp(-features @ [-1.0, 0.5]))).astype(float)
    assert fit_logistic(features, right, np.ones(20_000)) == pytest.approx([-1.0, 0.5], abs=0.05)


def test_weight_nothing_counts_for_nothing():
    features = np.ones((4, 1))
    odds = fit_logistic(features, np.array([1.0, 1, 1, 0]), np.array([100.0, 100, 100, 100]))
    assert odds == pytest.approx([np.log(3)], abs=0.01)
    assert fit_logistic(features, np.array([1.0, 1, 1, 0]), np.array([100.0, 0, 0, 100])) == pytest.approx(
        [0], abs=0.01
    )


def test_area_under_roc_by_hand():
    assert area_under_roc(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])) == 0.75
    assert area_under_roc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5


def test_the_spread_is_a_gaussians_and_heeds_no_outlier():
    shifts = np.random.default_rng(0).normal(0.3, 0.05, (5000, 7))
    shifts[:100] = 9.0
    shifts[100:200] = np.nan
    assert spread_of(shifts) == pytest.approx([0.05] * 7, rel=0.1)


def test_only_right_words_tell_how_late_the_alignment_is():
    times = {"a.mpg": np.array([*STARTS, END]) + 0.2}
    (found,) = read_sample(sample("BIN BLUE AT F TWO SOON"), times)
    assert found.right.tolist() == [1, 1, 1, 1, 1, 0]
    assert found.shift_s[:5] == pytest.approx([-0.2] * 5)
    assert np.isnan(found.shift_s[5:]).all()
    (spoilt,) = read_sample(sample("BIN BLUE AT F TWO NOW", "shuffled"), times)
    assert spoilt.right.tolist() == [0] * 6
    assert np.isnan(spoilt.shift_s).all()


def test_a_fit_doubts_spoilt_clips_more_and_knows_the_shift():
    said = "BIN BLUE AT F TWO NOW"
    samples = [sample(said, name=f"{i}.mpg") for i in range(8)]
    samples += [sample(said, "shuffled", sure=1.5, name=f"{i}.mpg") for i in range(8)]
    times = {f"{i}.mpg": np.array([*STARTS, END]) + 0.1 for i in range(8)}
    found = fit(samples, times)
    assert found.shift_s == pytest.approx([-0.1] * 7)
    assert found.spread_s == pytest.approx([0] * 7, abs=1e-6)
    assert found.confidence(0.99, 0.0) > 0.8
    assert found.confidence(0.5, -60.0) < 0.2


def test_times_have_six_starts_and_an_end(tmp_path: Path):
    table = tmp_path / "words.csv"
    rows = [f"a.mpg,W{i},{i},{i + 1}" for i in range(6)]
    table.write_text("\n".join(["file,word,start_s,end_s", *rows]) + "\n")
    assert read_times(table)["a.mpg"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_card_takes_the_constants_of_its_own_weights_only(tmp_path: Path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "x", "sha256": "ab"}))
    measured = Calibration(-1.0, 0.25, 0.5, (0.1,) * 7, (0.2,) * 7)
    with pytest.raises(SystemExit, match="the card of ab"):
        write_card(card, measured, "cd")
    write_card(card, measured, "ab")
    written = json.loads(card.read_text())
    assert written["name"] == "x"
    assert from_card(written, "ab") == measured
