from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from inference.errors import VisemeError
from inference.speaker import synthesis as voice
from inference.speaker.speech import Speech
from inference.speaker.synthesis import RATE, has_espeak, say, say_by_espeak, say_by_tone

SPEECH = Speech("BIN BLUE AT S TWO NOW", 4)


def check_timing(samples: np.ndarray) -> None:
    assert samples.shape == (48000,)
    assert samples.dtype == np.float32
    assert 0.3 < np.abs(samples).max() <= 1
    words = SPEECH.timed_words()
    assert not samples[: round((words[0].start_s - 0.03) * RATE)].any()
    assert not samples[round((words[-1].end_s + 0.03) * RATE) :].any()
    for word in words:
        said = samples[round(word.start_s * RATE) : round(word.end_s * RATE)]
        assert np.sqrt((said**2).mean()) > 0.02, word


def test_the_tone_sounds_while_words_are_said_and_is_the_same_every_time():
    check_timing(say_by_tone(SPEECH, 4))
    assert np.array_equal(say_by_tone(SPEECH, 4), say_by_tone(SPEECH, 4))


def test_an_s_hisses_and_a_vowel_hums():
    samples = say_by_tone(SPEECH, 4)

    def share_above_3_khz(phoneme: str, word: int) -> float:
        (phone,) = (one for one in SPEECH.phones if (one.phoneme, one.word) == (phoneme, word))
        part = samples[round(phone.start_s * RATE) : round(phone.end_s * RATE)]
        power = np.abs(np.fft.rfft(part)) ** 2
        return float(power[np.fft.rfftfreq(len(part), 1 / RATE) > 3000].sum() / power.sum())

    assert share_above_3_khz("S", 3) > 0.8
    assert share_above_3_khz("UW", 1) < 0.2


@pytest.mark.skipif(not has_espeak(), reason="espeak-ng is not installed")
def test_espeak_says_each_word_in_its_time():
    check_timing(say_by_espeak(SPEECH, 4))


def test_without_espeak_the_tone_speaks(monkeypatch):
    monkeypatch.setattr(voice, "has_espeak", lambda: False)
    assert np.array_equal(say(SPEECH, 4), say_by_tone(SPEECH, 4))


def test_an_espeak_that_fails_is_named(monkeypatch, tmp_path: Path):
    def fail(command, **_kwargs):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(voice.subprocess, "run", fail)
    with pytest.raises(VisemeError, match="espeak-ng did not say BIN"):
        say_by_espeak(SPEECH, 4)
