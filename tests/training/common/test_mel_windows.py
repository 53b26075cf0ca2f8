from __future__ import annotations

import numpy as np
import pytest

from training.common.mel_windows import LOOK_AHEAD_MS, draw_silence, make_clip_mels, scale_frequencies, vary_mel
from training.common.speech import companding


def speech_like() -> np.ndarray:
    rng = np.random.default_rng(4)
    envelope = np.abs(np.sin(np.arange(48_000) / 2500))
    return np.round(rng.normal(0, 3000, 48_000) * envelope).astype(np.int16)


def test_audio_has_degraded_copies_of_its_length():
    audio, again = (make_clip_mels(speech_like(), 75, (1, 2)) for _ in range(2))
    assert len({mel.shape for mel in audio.mels}) == 1
    assert all(np.array_equal(a, b) for a, b in zip(audio.mels, again.mels, strict=True))
    plain, *others = (mel.astype(np.float32) for mel in audio.mels)
    assert all(0.05 < np.abs(other - plain).mean() < 4 for other in others)
    assert audio.windows(75).shape == (75, 1, 80, 16)


def test_the_look_ahead_suits_live_use():
    # The last column of a window is 15 columns of 12.5 ms after its first, which is 40 ms before the frame; its
    # transform covers 25 ms more.
    assert pytest.approx(15 * 12.5 - 40 + 25) == LOOK_AHEAD_MS


def test_companding_is_the_mu_law():
    samples = np.array([-1, -0.5, -0.01, 0, 0.01, 0.5, 1], np.float32)
    coded = companding(samples)
    assert np.allclose(coded, samples, rtol=0.04, atol=1e-3)
    assert not np.array_equal(coded, samples)
    assert len(np.unique(companding(np.linspace(-1, 1, 10_001, dtype=np.float32)))) == 255


def test_mels_vary_within_their_scale():
    rng = np.random.default_rng(2)
    mel = rng.uniform(-4, 4, (80, 16)).astype(np.float32)
    for _ in range(30):
        changed = vary_mel(mel, rng)
        assert changed.shape == mel.shape
        assert -4 <= changed.min() <= changed.max() <= 4
        assert draw_silence(rng).max() < 1
    tone = np.full((80, 16), -4, np.float32)
    tone[40] = 2
    assert scale_frequencies(tone, 1.1).mean(1).argmax() == 44
    assert np.array_equal(scale_frequencies(tone, 1.0), tone)
