from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from inference.audio.features import mel_of_window
from inference.avatar.utterance import Utterance
from inference.speaker.visemes import REST, VISEMES
from training.avatar.espeak import Espeak, Sounded, hold, mouths_of, visemes_of
from training.avatar.real_clips import gaps_of, to_units
from training.avatar.utterances import (
    HELD_OUT_PEOPLE,
    PEOPLE,
    cut_windows,
    draw_utterances,
    gap_of,
    hear_nobody,
    resample,
    roughen,
    speak,
)

needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")
OPEN, PRESS = 0, 3


def test_phonemes_of_espeak_have_the_shapes_of_the_speaker():
    assert visemes_of("b") == VISEMES["B"]
    assert visemes_of("A:") == VISEMES["AA"]
    assert visemes_of("r-") == VISEMES["R"]
    assert visemes_of("IR") == VISEMES["IH"]  # unheard of: by its first letter
    assert visemes_of("_:") == (REST,)
    with pytest.raises(KeyError):
        visemes_of("\N{SNOWMAN}")


def test_a_diphthong_shares_its_time_among_its_shapes():
    held = hold((Sounded("aI", 1.0, 1.2), Sounded("_", 1.2, 1.3)))
    assert [one.start_s for one in held] == pytest.approx([1.0, 1.1, 1.2])
    assert [one.end_s for one in held] == pytest.approx([1.1, 1.2, 1.3])
    assert [one.viseme for one in held] == [*VISEMES["AY"], REST]


def test_the_mouth_rests_opens_for_a_vowel_and_shuts_for_a_p():
    sounds = (Sounded("A:", 0.5, 0.8), Sounded("p", 0.8, 0.9), Sounded("A:", 0.9, 1.2))
    before, vowel, lips, after = mouths_of(sounds, np.array([0.1, 0.65, 0.85, 2.0]))
    assert np.abs(before).max() < 1e-6
    assert vowel[OPEN] > 1.4
    assert lips[PRESS] > 0.8
    assert gap_of(np.stack([vowel, lips])) == pytest.approx([vowel[OPEN], 0], abs=0.3)
    assert np.abs(after).max() < 1e-6
    assert not mouths_of((), np.array([0.0, 1.0])).any()


def test_gaps_by_hand():
    shapes = np.zeros((4, 7), np.float32)
    shapes[0, OPEN] = 1.2
    shapes[1, [OPEN, PRESS]] = 1.2, 1.0
    shapes[2, 5] = 1.0  # teeth
    assert gap_of(shapes) == pytest.approx([1.2, 0, 0.34, 0], abs=1e-6)


def test_training_hears_what_a_session_hears():
    rng = np.random.default_rng(0)
    samples = (rng.standard_normal(16_000) * 0.1).astype(np.float32)
    windows = cut_windows(samples, 25)
    assert windows.shape == (25 + 15, 80, 16)
    utterance = Utterance(16_000)
    utterance.push(np.round(samples * 32767).astype(np.int16))
    utterance.end()
    for frame in range(3):
        new = [mel_of_window(window) for window in utterance.take_windows()]
        assert windows[frame + 16 - len(new) : frame + 16] == pytest.approx(np.stack(new), abs=4e-3)  # float16
        utterance.advance([mel[0] for mel in new])


def test_resampling_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert resample(tone, 16_000) == pytest.approx(expected, abs=1e-3)


def test_rough_sound_is_the_same_for_the_same_seed():
    tone = np.sin(np.arange(8_000) / 9).astype(np.float32)
    made = [roughen(tone, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert np.abs(made[0]).max() <= 1
    assert len(made[0]) == len(tone)


def test_nobody_speaks_with_a_shut_mouth():
    heard = hear_nobody(np.random.default_rng(0))
    assert heard.mels.shape == (75 + 15, 80, 16)
    assert heard.gaps.tolist() == [0] * 75


@needs_espeak
def test_espeak_says_when_each_phoneme_sounds():
    said = Espeak().say("bar, map", "gmw/en+m3")
    names = [one.name for one in said.sounds]
    assert [name for name in names if name[0] != "_"] == ["b", "A@", "m", "a", "p"]
    assert all(one.end_s > one.start_s for one in said.sounds)
    vowel = said.sounds[names.index("A@")]
    inside = said.samples[round(vowel.start_s * said.rate) : round(vowel.end_s * said.rate)]
    pause = said.sounds[next(i for i, name in enumerate(names) if name[0] == "_")]
    silent = said.samples[round(pause.start_s * said.rate) : round(pause.end_s * said.rate)]
    assert np.abs(inside).max() > 20 * np.sqrt((silent[len(silent) // 2 :] ** 2).mean())
    with pytest.raises(ValueError, match="no such voice"):
        Espeak().say("bar", "nobody")


@needs_espeak
def test_an_utterance_is_in_step_with_its_phonemes():
    samples, sounds = speak(Espeak(), np.random.default_rng(1))
    spoken = [s for s in sounds if s.name[0] != "_"]
    loud = np.flatnonzero(np.abs(samples) > 0.02) / 16_000
    assert loud[0] == pytest.approx(spoken[0].start_s, abs=0.1)
    assert loud[-1] == pytest.approx(spoken[-1].end_s, abs=0.2)


@needs_espeak
def test_one_utterance_in_twenty_is_silence():
    utterances = draw_utterances(20, 5)
    assert [one.gaps.max() > 0.3 for one in utterances] == [True] * 19 + [False]
    assert all(len(one.mels) == one.n_frames + 15 and len(one.mouths) == one.n_frames for one in utterances)


def test_voices_held_out_are_not_trained_on():
    assert not set(HELD_OUT_PEOPLE.split()) & set(PEOPLE.split())


def test_gaps_of_filmed_lips_are_shares_of_their_width():
    lips = np.zeros((2, 20, 2), np.float32)
    lips[:, 6, 0] = 0.2  # 72 px of 360 between the corners
    lips[1, [19, 18, 17], 1] = 0.125  # 36 px of 288
    assert gaps_of(lips) == pytest.approx([0, 0.5])


def test_filmed_gaps_are_laid_onto_rendered_ones():
    gaps = np.linspace(0, 1, 101).astype(np.float32)
    (units,) = to_units([gaps])
    assert units[15] == pytest.approx(0, abs=1e-6)
    assert units[90] == pytest.approx(0.87, abs=1e-6)
    assert units[:15].max() == 0
