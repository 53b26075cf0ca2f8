from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state, uniform

from inference.dimensions.wav2lip import Wav2LipWidths
from inference.models import Wav2Lip

NARROW = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)


@pytest.fixture(scope="module")
def net() -> Wav2Lip:
    net = Wav2Lip().eval()
    net.load_state_dict(seeded_state(net))
    return net


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    audio = uniform("wav2lip.audio", (2, 1, 80, 16)) * 8 - 4
    face = uniform("wav2lip.face", (2, 6, 96, 96))
    face[:, :3, 48:] = 0
    return torch.from_numpy(audio), torch.from_numpy(face)


def test_size_and_shape_are_as_published(net: Wav2Lip):
    assert sum(p.numel() for p in net.parameters()) == 36_298_035
    assert len(net.state_dict()) == 352


def test_names_and_outputs_equal_upstream(shared: Path, net: Wav2Lip):
    listed = json.loads((shared / "golden" / "wav2lip_state_dict.json").read_text())
    assert [[key, list(value.shape)] for key, value in net.state_dict().items()] == listed
    audio, face = inputs()
    with np.load(shared / "golden" / "wav2lip.npz") as golden, torch.inference_mode():
        np.testing.assert_allclose(net(audio, face), golden["output"], atol=1e-5)
        np.testing.assert_allclose(net.audio_encoder(audio)[:, :, 0, 0], golden["audio_embedding"], atol=5e-5)


def test_widths_come_from_the_tensors():
    narrow = Wav2Lip(NARROW).eval()
    narrow.load_state_dict(seeded_state(narrow, 1.2))
    assert Wav2LipWidths.of(narrow.state_dict()) == NARROW
    assert Wav2LipWidths.of(Wav2Lip().state_dict()) == Wav2LipWidths()
    again = Wav2Lip(Wav2LipWidths.of(narrow.state_dict())).eval()
    again.load_state_dict(narrow.state_dict())
    audio, face = inputs()
    with torch.inference_mode():
        faces = again(audio, face)
        assert faces.shape == (2, 3, 96, 96)
        assert torch.equal(faces, narrow(audio, face))
        assert not torch.allclose(faces, again(audio * 0.5, face), atol=1e-6)
