from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state, uniform

from inference.models import AudioVisualEncoder, Wav2Lip

NARROW = (4, 6, 8, 10, 16)


@pytest.fixture(scope="module")
def net() -> AudioVisualEncoder:
    net = AudioVisualEncoder().eval()
    net.load_state_dict(seeded_state(net, 0.8))
    return net


def mels(n: int = 3) -> torch.Tensor:
    return torch.from_numpy(uniform("ave.mel", (n, 1, 80, 16)) * 8 - 4)


def test_size_and_shape_are_as_published(net: AudioVisualEncoder):
    assert sum(p.numel() for p in net.parameters()) == 2_812_672
    with torch.inference_mode():
        assert net(mels()).shape == (3, 512)


def test_names_and_outputs_equal_upstream(shared: Path, net: AudioVisualEncoder):
    listed = json.loads((shared / "golden" / "ave_state_dict.json").read_text())
    assert [[key, list(value.shape)] for key, value in net.state_dict().items()] == listed
    with np.load(shared / "golden" / "ave.npz") as golden, torch.inference_mode():
        features = net(torch.from_numpy(golden["mel_windows"]))
        np.testing.assert_allclose(features, golden["window_features"], atol=1e-4)


def test_it_equals_wav2lips_audio_encoder(net: AudioVisualEncoder):
    """The layers have the same names, so that the same seeds give the same weights and the same output."""
    wav2lip = Wav2Lip().eval()
    wav2lip.load_state_dict(seeded_state(wav2lip, 0.8))
    with torch.inference_mode():
        assert torch.equal(net(mels()), wav2lip.audio_encoder(mels())[:, :, 0, 0])


def test_widths_come_from_the_tensors():
    narrow = AudioVisualEncoder(NARROW).eval()
    narrow.load_state_dict(seeded_state(narrow, 1.2))
    again = AudioVisualEncoder.like(narrow.state_dict()).eval()
    assert again.widths == NARROW
    again.load_state_dict(narrow.state_dict())
    with torch.inference_mode():
        features = again(mels())
        assert features.shape == (3, 16)
        assert torch.equal(features, narrow(mels()))
        assert not torch.allclose(features, again(mels() * 0.5), atol=1e-6)
    with pytest.raises(KeyError):
        AudioVisualEncoder.like({"conv1.weight": torch.zeros(1)})
