from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from inference.speaker.visemes import REST, VISEMES
from training.common.espeak import Espeak, TimedPhoneme, mouth_shapes_at, time_visemes, visemes_of
from training.common.lips import shape_gap

needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")
OPEN, PRESS = 0, 3  # columns of a mouth shape


def test_phonemes_of_espeak_have_the_shapes_of_the_synthetic_speaker():
    assert visemes_of("b") == VISEMES["B"]
    assert visemes_of("A:") == VISEMES["AA"]
    assert visemes_of("r-") == VISEMES["R"]
    assert visemes_of("IR") == VISEMES["IH"]  # not in the table: by its first letter
    assert visemes_of("_:") == (REST,)
    with pytest.raises(KeyError):
        visemes_of("\N{SNOWMAN}")


def test_a_diphthong_shares_its_time_among_its_shapes():
    visemes = time_visemes((TimedPhoneme("aI", 1.0, 1.2), TimedPhoneme("_", 1.2, 1.3)))
    assert [one.start_s for one in visemes] == pytest.approx([1.0, 1.1, 1.2])
    assert [one.end_s for one in visemes] == pytest.approx([1.1, 1.2, 1.3])
    assert [one.viseme for one in visemes] == [*VISEMES["AY"], REST]


def test_the_mouth_rests_opens_for_a_vowel_and_closes_for_a_p():
    phonemes = (TimedPhoneme("A:", 0.5, 0.8), TimedPhoneme("p", 0.8, 0.9), TimedPhoneme("A:", 0.9, 1.2))
    before, vowel, lips, after = mouth_shapes_at(phonemes, np.array([0.1, 0.65, 0.85, 2.0]))
    assert np.abs(before).max() < 1e-6
    assert vowel[OPEN] > 1.4
    assert lips[PRESS] > 0.8
    assert shape_gap(np.stack([vowel, lips])) == pytest.approx([vowel[OPEN], 0], abs=0.3)
    assert np.abs(after).max() < 1e-6
    assert not mouth_shapes_at((), np.array([0.0, 1.0])).any()


@needs_espeak
def test_espeak_reports_the_times_of_phonemes():
    speech = Espeak().synthesise("bar, map", "gmw/en+m3")
    names = [one.name for one in speech.phonemes]
    assert [name for name in names if name[0] != "_"] == ["b", "A@", "m", "a", "p"]
    assert all(one.end_s > one.start_s for one in speech.phonemes)
    vowel = speech.phonemes[names.index("A@")]
    inside = speech.samples[round(vowel.start_s * speech.rate) : round(vowel.end_s * speech.rate)]
    pause = speech.phonemes[next(i for i, name in enumerate(names) if name[0] == "_")]
    silent = speech.samples[round(pause.start_s * speech.rate) : round(pause.end_s * speech.rate)]
    assert np.abs(inside).max() > 20 * np.sqrt((silent[len(silent) // 2 :] ** 2).mean())
    with pytest.raises(ValueError, match="no such voice"):
        Espeak().synthesise("bar", "unknown")
