from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from bench.lip_closure import ShapeReader, bilabial_middles, count_shut, read_shapes
from inference.audio.mel import SAMPLE_RATE
from inference.models import Wav2Lip
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import synthesise_with_formants
from training.common.espeak import TimedPhoneme
from training.common.speech import to_int16
from training.lip_sync.widths import WIDTHS


def test_lips_are_shut_if_they_shut_near_the_middle_of_the_phoneme():
    opening = np.ones(50)
    opening[[10, 20, 30]] = 0.05, 0.2, 0.0
    assert count_shut(opening, [10 / 25, 20 / 25, 30 / 25]) == (2, 3)
    assert count_shut(opening, [12 / 25, 13 / 25]) == (1, 2)  # 80 and 120 ms away
    assert count_shut(opening, [3.0]) == (0, 0)  # after the end


def test_openings_are_counted_from_closed_lips():
    opening = np.ones(50)
    opening[[10, 20]] = 0.25, 0.3  # a tenth of the way from 0.2 to 1 is 0.28
    assert count_shut(opening, [10 / 25, 20 / 25], closed=0.2) == (1, 2)
    assert count_shut(opening, [10 / 25, 20 / 25]) == (0, 2)


def test_bilabials_are_b_m_and_p():
    phonemes = [TimedPhoneme(name, i, i + 0.5) for i, name in enumerate(("b", "A:", "m", "p", "f", "_"))]
    assert bilabial_middles(phonemes) == (0.25, 2.25, 3.25)


def test_the_opening_is_read_out_of_the_shipped_audio_encoder(weights_cache: Path):
    speech = SyntheticClip("bin blue at f two now", 8).speech
    samples = to_int16(synthesise_with_formants(speech, 8))
    opening = ShapeReader("starter").opening(np.concatenate([samples, np.zeros(SAMPLE_RATE, np.int16)]), 95)
    assert np.percentile(opening[:75], 90) > 1  # standard deviation of the gap
    assert opening[-15:] == pytest.approx(0, abs=0.01)


def test_other_weights_have_no_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(Wav2Lip(WIDTHS).state_dict(), tmp_path / "random.safetensors")
    assert read_shapes(tmp_path / "random.safetensors") is None
    assert "does not encode shapes" in capsys.readouterr().out
