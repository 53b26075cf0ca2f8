from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from inference.errors import VisemeError
from inference.speaker import synthesis
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import (
    SYNTHESIS_RATE,
    has_espeak,
    synthesise,
    synthesise_with_espeak,
    synthesise_with_formants,
)

SPEECH = SynthesisedSpeech("BIN BLUE AT S TWO NOW", 4)


def check_timing(samples: np.ndarray) -> None:
    assert samples.shape == (48000,)
    assert samples.dtype == np.float32
    assert 0.3 < np.abs(samples).max() <= 1
    words = SPEECH.timed_words()
    assert not samples[: round((words[0].start_s - 0.03) * SYNTHESIS_RATE)].any()
    assert not samples[round((words[-1].end_s + 0.03) * SYNTHESIS_RATE) :].any()
    for word in words:
        said = samples[round(word.start_s * SYNTHESIS_RATE) : round(word.end_s * SYNTHESIS_RATE)]
        assert np.sqrt((said**2).mean()) > 0.02, word


def test_formant_speech_fits_the_words_and_is_deterministic():
    check_timing(synthesise_with_formants(SPEECH, 4))
    assert np.array_equal(synthesise_with_formants(SPEECH, 4), synthesise_with_formants(SPEECH, 4))


def test_an_s_hisses_and_a_vowel_hums():
    samples = synthesise_with_formants(SPEECH, 4)

    def share_above_3_khz(phoneme: str, word: int) -> float:
        (phone,) = (one for one in SPEECH.phones if (one.phoneme, one.word) == (phoneme, word))
        part = samples[round(phone.start_s * SYNTHESIS_RATE) : round(phone.end_s * SYNTHESIS_RATE)]
        power = np.abs(np.fft.rfft(part)) ** 2
        return float(power[np.fft.rfftfreq(len(part), 1 / SYNTHESIS_RATE) > 3000].sum() / power.sum())

    assert share_above_3_khz("S", 3) > 0.8
    assert share_above_3_khz("UW", 1) < 0.2


@pytest.mark.skipif(not has_espeak(), reason="espeak-ng is not installed")
def test_espeak_fits_each_word_to_its_time():
    check_timing(synthesise_with_espeak(SPEECH, 4))


def test_formants_are_used_without_espeak(monkeypatch):
    monkeypatch.setattr(synthesis, "has_espeak", lambda: False)
    assert np.array_equal(synthesise(SPEECH, 4), synthesise_with_formants(SPEECH, 4))


def test_a_failure_of_espeak_is_reported(monkeypatch, tmp_path: Path):
    def fail(command, **_kwargs):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(synthesis.subprocess, "run", fail)
    with pytest.raises(VisemeError, match="espeak-ng failed on BIN"):
        synthesise_with_espeak(SPEECH, 4)
