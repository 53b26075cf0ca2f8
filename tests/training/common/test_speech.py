from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from training.common.espeak import Espeak
from training.common.speech import HELD_OUT_PEOPLE, PEOPLE, degrade, resample, synthesise_utterance

needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")


def test_resampling_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert resample(tone, 16_000) == pytest.approx(expected, abs=1e-3)


def test_degraded_audio_is_the_same_for_the_same_seed():
    tone = np.sin(np.arange(8_000) / 9).astype(np.float32)
    degraded = [degrade(tone, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(degraded[0], degraded[1])
    assert not np.array_equal(degraded[0], degraded[2])
    assert np.abs(degraded[0]).max() <= 1
    assert len(degraded[0]) == len(tone)


@needs_espeak
def test_the_audio_of_an_utterance_matches_its_phonemes():
    samples, phonemes = synthesise_utterance(Espeak(), np.random.default_rng(1))
    spoken = [one for one in phonemes if one.name[0] != "_"]
    loud = np.flatnonzero(np.abs(samples) > 0.02) / 16_000
    assert loud[0] == pytest.approx(spoken[0].start_s, abs=0.1)
    assert loud[-1] == pytest.approx(spoken[-1].end_s, abs=0.2)


def test_held_out_voices_are_not_trained_on():
    assert not set(HELD_OUT_PEOPLE.split()) & set(PEOPLE.split())
