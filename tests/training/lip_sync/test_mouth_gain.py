from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.models import Wav2Lip
from training.lip_sync import mouth_gain
from training.lip_sync.evaluate import MotionScore
from training.lip_sync.mouth_gain import GAINS, amplify, find_gain, last_norm, mean_audio_features
from training.lip_sync.samples import (
    PreparedClip,
)
from training.lip_sync.train import (
    WIDTHS,
)


def test_a_gain_moves_the_audio_encoder_away_from_its_mean(prepared: PreparedClip):
    torch.manual_seed(2)
    network = Wav2Lip(WIDTHS).eval()
    outputs: list[torch.Tensor] = []
    last_norm(network).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    mels = torch.from_numpy(np.stack([prepared.audio.window(i) for i in range(0, 75, 5)])[:, None])
    mean = mean_audio_features(network, [prepared])
    assert mean.shape == (WIDTHS.audio_encoder[-1],)
    with torch.no_grad():
        network.audio_encoder(mels)
        amplify(network, mean, 2.0)
        network.audio_encoder(mels)
    before, after = outputs[-2:]
    assert torch.allclose(after.mean((0, 2, 3)), mean, atol=1e-4)
    assert torch.allclose(after - mean[:, None, None], 2 * (before - mean[:, None, None]), atol=1e-4)


def test_the_largest_gain_with_a_good_correlation_is_taken(prepared: PreparedClip, monkeypatch: pytest.MonkeyPatch):
    poor = dict.fromkeys(GAINS, 0.3)
    assert find_gain_for(prepared, monkeypatch, poor | {1.0: 0.71, 1.5: 0.7, 2.0: 0.68}) == 1.5
    assert find_gain_for(prepared, monkeypatch, poor | {1.0: 0.5, 1.5: 0.7, 2.0: 0.71}) == 2.0


def test_a_gain_that_moves_lips_too_far_is_not_taken(prepared: PreparedClip, monkeypatch: pytest.MonkeyPatch):
    assert find_gain_for(prepared, monkeypatch, {1.0: 0.5, 1.5: 0.6, 2.0: 0.7, 2.5: 0.8}) == 2.0  # an amplitude of 1.2


def find_gain_for(prepared: PreparedClip, monkeypatch: pytest.MonkeyPatch, correlations: dict[float, float]) -> float:
    """Return the gain that is found if each gain has this correlation."""
    torch.manual_seed(2)
    network = Wav2Lip(WIDTHS).eval()
    before = last_norm(network).weight.detach().clone()

    def score_motion(network: Wav2Lip, *_: object) -> MotionScore:
        gain = float((last_norm(network).weight.detach() / before).mean())
        return MotionScore(correlations.get(round(gain, 1), 0.9), 0.6 * gain)

    monkeypatch.setattr(mouth_gain, "score_motion", score_motion)
    gain, _ = find_gain(network, [prepared], object())  # type: ignore[arg-type]
    assert torch.allclose(last_norm(network).weight, gain * before)
    return gain
