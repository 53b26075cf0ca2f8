from __future__ import annotations

import numpy as np
import pytest

from inference.media.audio_convert import AudioFormat
from inference.media.audio_spool import AudioSpool, spool_blocks
from inference.media.downmix import StereoBalance, mix_difference
from inference.media.media_warnings import INVERTED

RATE = 16_000
VOICE = (9000 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.int16)
OTHER = (9000 * np.sin(2 * np.pi * 523 * np.arange(RATE) / RATE)).astype(np.int16)
NOISE = np.random.default_rng(0).integers(-400, 400, RATE).astype(np.int16)


def spool(left: np.ndarray, right: np.ndarray) -> AudioSpool:
    samples = np.stack([left, right], axis=1).ravel()
    blocks = [(AudioFormat(RATE, 2), samples[:7000]), (AudioFormat(RATE, 2), samples[7000:])]
    return spool_blocks(iter(blocks), "x", [])


@pytest.mark.parametrize("noise", [0, NOISE])
def test_an_inverted_channel_does_not_cancel_the_voice(noise: np.ndarray | int):
    with spool(VOICE, (noise - VOICE).astype(np.int16)) as audio:
        assert audio.warnings == (INVERTED,)
        mono = audio.to_mono(RATE)
        assert np.abs(audio.read(0, 100)[:, 0] - VOICE[:100]).max() == 0  # what is written stays as it was
    assert abs(np.abs(mono).max() - 9000) < 300
    assert np.corrcoef(mono[200:-200], VOICE[200:-200])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("left", "right"), [(VOICE, VOICE), (VOICE, 0 * VOICE), (0 * VOICE, VOICE), (VOICE, OTHER), (0 * VOICE, 0 * VOICE)]
)
def test_other_stereo_is_summed(left: np.ndarray, right: np.ndarray):
    with spool(left, right) as audio:
        assert audio.warnings == ()
        mono = audio.to_mono(RATE)
    assert np.abs(mono - (left.astype(int) + right) / 2).max() <= 2


def test_the_difference_of_extremes_is_clipped():
    extremes = np.array([[32767, -32768], [-32768, 32767], [-32768, -32768]], np.int16)
    assert mix_difference(extremes).ravel().tolist() == [32767, -32768, 0]


def test_silence_is_not_inverted():
    assert not StereoBalance().is_cancelled
