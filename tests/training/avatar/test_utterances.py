from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from inference.audio.avatar_features import mel_of_window
from inference.avatar.utterance import Utterance
from training.avatar.utterances import cut_windows, draw_silence, draw_utterances

needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")


def test_training_uses_the_same_windows_as_a_session():
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


def test_the_mouth_is_closed_in_silence():
    utterance = draw_silence(np.random.default_rng(0))
    assert utterance.mels.shape == (75 + 15, 80, 16)
    assert utterance.gaps.tolist() == [0] * 75


@needs_espeak
def test_one_utterance_in_twenty_is_silence():
    utterances = draw_utterances(20, 5)
    assert [one.gaps.max() > 0.3 for one in utterances] == [True] * 19 + [False]
    assert all(len(one.mels) == one.n_frames + 15 and len(one.mouths) == one.n_frames for one in utterances)
