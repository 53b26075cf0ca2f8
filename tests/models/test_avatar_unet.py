from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_weights import rng_for, seeded_state, uniform

from inference.models import AvatarUNet

NARROW = (4, 6, 8, 10, 12)


@pytest.fixture(scope="module")
def net() -> AvatarUNet:
    net = AvatarUNet().eval()
    net.load_state_dict(seeded_state(net, 0.9))
    return net


def face() -> torch.Tensor:
    return torch.from_numpy(uniform("unet328.image", (1, 6, 320, 320)))


def audio(net: AvatarUNet) -> torch.Tensor:
    return torch.from_numpy(rng_for("unet328.audio").standard_normal((1, *net.audio_shape), dtype=np.float32))


def narrow(mode: str = "ave") -> AvatarUNet:
    net = AvatarUNet(mode, NARROW, n_audio_channels=8).eval()
    net.load_state_dict(seeded_state(net, 1.0))
    return net


def test_size_and_shape_are_as_published(net: AvatarUNet):
    assert sum(p.numel() for p in net.parameters()) == 12_186_935
    assert len(net.state_dict()) == 556
    assert net.audio_shape == (32, 16, 16)


def test_names_and_outputs_equal_upstream(shared: Path, net: AvatarUNet):
    listed = json.loads((shared / "golden" / "unet328_state_dict.json").read_text())
    assert [[key, list(value.shape)] for key, value in net.state_dict().items()] == listed
    with np.load(shared / "golden" / "unet328.npz") as golden, torch.inference_mode():
        image, features = face(), audio(net)
        np.testing.assert_array_equal(image.flatten()[:4], golden["image_probe"])
        faces = net(image, features).numpy()
        np.testing.assert_allclose(faces[:, :, ::4, ::4], golden["output_every4"], atol=1e-4)
        np.testing.assert_allclose(faces, golden["output_f16"], atol=6e-4)
        np.testing.assert_allclose(net.audio_model(features), golden["audio_model_out"], atol=1e-4)
        without_audio = net(image, torch.zeros_like(features))
        np.testing.assert_allclose(without_audio[:, :, ::8, ::8], golden["output_zero_audio_every8"], atol=1e-4)


@pytest.mark.parametrize("mode", ["ave", "hubert", "wenet"])
def test_the_audio_of_every_mode_affects_the_face(mode: str):
    """Every mode maps its own audio shape to 10 x 10, with upstream's widths or narrow ones."""
    wide = AvatarUNet(mode)
    with torch.inference_mode():
        assert wide.audio_model(torch.zeros(1, *wide.audio_shape)).shape == (1, 512, 10, 10)
        net = narrow(mode)
        faces = net(face(), audio(net))
        assert faces.shape == (1, 3, 320, 320)
        assert not torch.allclose(faces, net(face(), audio(net) * 0), atol=1e-5)


def test_hubert_and_wenet_have_the_sizes_of_upstream():
    """By hand: hubert has the tensors of ave; wenet's first three layers are 256 wide."""
    shapes = {mode: [tuple(v.shape) for v in AvatarUNet(mode).state_dict().values()] for mode in ("ave", "hubert")}
    assert shapes["ave"] == shapes["hubert"]
    wenet = AvatarUNet("wenet").state_dict()
    assert wenet["audio_model.conv1.conv.0.weight"].shape == (512, 256, 1, 1)
    assert wenet["audio_model.conv3.weight"].shape == (256, 256, 3, 3)


@pytest.mark.parametrize("mode", ["ave", "hubert", "wenet"])
def test_widths_come_from_the_tensors(mode: str):
    net = narrow(mode)
    again = AvatarUNet.like(net.state_dict(), mode).eval()
    assert again.widths == NARROW
    assert again.audio_shape == (8, *AvatarUNet(mode).audio_shape[1:])
    again.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(face(), audio(net)), net(face(), audio(net)))


def test_the_mode_is_recognised_by_shapes():
    assert AvatarUNet.like(AvatarUNet().state_dict()).mode == "ave"
    assert AvatarUNet.like(AvatarUNet("wenet").state_dict()).mode == "wenet"
    assert AvatarUNet.like(AvatarUNet().state_dict()).widths == AvatarUNet().widths


def test_tensors_of_another_network_are_rejected():
    with pytest.raises(KeyError):
        AvatarUNet.like({"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize(("mode", "widths"), [("whisper", NARROW), ("ave", NARROW[:4])])
def test_invalid_modes_and_widths_are_rejected(mode: str, widths: tuple[int, ...]):
    with pytest.raises(ValueError, match="expected one of ave, hubert, wenet, 5"):
        AvatarUNet(mode, widths)
