"""The layers without torch are those of the torch modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inference.dimensions.avatar import MODES, UNetDimensions, unet_layers
from inference.dimensions.layers import ConvLayer, shapes_of
from inference.dimensions.lip_coord_net import lip_coord_net_shapes
from inference.dimensions.s3fd import s3fd_layers, s3fd_shapes
from inference.dimensions.wav2lip import Wav2LipWidths, audio_encoder_layers, wav2lip_layers
from inference.models import S3FD, AudioVisualEncoder, AvatarUNet, LipCoordNet, Wav2Lip

NARROW = Wav2LipWidths((4, 8, 12, 16, 20, 24, 28), (5, 6, 7, 8, 9), (10, 11, 12, 13, 14, 15, 16), 3)


def shapes_in(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(value.shape)) for key, value in module.state_dict().items()]


def check_layers(module: nn.Module, layers: list[ConvLayer]) -> None:
    """Compare what shapes don't show: strides, paddings, groups and residual sums."""
    convolutions = {
        name: one for name, one in module.named_modules() if isinstance(one, nn.Conv2d | nn.ConvTranspose2d)
    }
    assert [layer.name for layer in layers] == list(convolutions)
    for layer in layers:
        conv = convolutions[layer.name]
        assert (layer.stride, layer.padding, layer.groups) == (conv.stride, conv.padding, conv.groups), layer
        assert layer.output_padding == conv.output_padding, layer
        assert layer.is_transposed == isinstance(conv, nn.ConvTranspose2d)
    residual = {name for name, one in module.named_modules() if getattr(one, "residual", False)}
    assert {layer.name.rsplit(".", 2)[0] for layer in layers if layer.is_residual} == residual


def test_lip_coord_net():
    with torch.device("meta"):
        assert list(lip_coord_net_shapes().items()) == shapes_in(LipCoordNet())


@pytest.mark.parametrize("widths", [Wav2LipWidths(), NARROW])
def test_wav2lip(widths: Wav2LipWidths):
    with torch.device("meta"):
        module = Wav2Lip(widths)
    layers = wav2lip_layers(widths).all
    assert list(shapes_of(layers).items()) == shapes_in(module)
    check_layers(module, layers)
    assert Wav2LipWidths.of(module.state_dict()) == widths


def test_s3fd():
    with torch.device("meta"):
        module = S3FD()
    assert list(s3fd_shapes().items()) == shapes_in(module)
    check_layers(module, list(s3fd_layers().values()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", [None, (4, 6, 8, 10, 12)])
def test_unet(mode: str, widths: tuple[int, ...] | None):
    sizes = UNetDimensions.published(mode) if widths is None else UNetDimensions(mode, widths, 5)
    with torch.device("meta"):
        module = AvatarUNet(mode, sizes.widths, sizes.n_audio_channels)
    layers = unet_layers(sizes)
    assert list(shapes_of(layers.values()).items()) == shapes_in(module)
    check_layers(module, list(layers.values()))
    assert sizes.audio_shape == module.audio_shape
    assert UNetDimensions.of(module.state_dict(), mode) == sizes


def test_audio_encoder():
    with torch.device("meta"):
        module = AudioVisualEncoder((4, 6, 8, 10, 32))
    layers = list(audio_encoder_layers(module.widths))
    assert list(shapes_of(layers).items()) == shapes_in(module)
    check_layers(module, layers)


@pytest.mark.parametrize("widths", [(4, 8), (4, 6, 8, 10, 12, 14)])
def test_unet_dimensions_need_five_widths(widths: tuple[int, ...]):
    with pytest.raises(ValueError, match=f"{len(widths)} widths; expected one of ave, hubert, wenet, 5"):
        UNetDimensions("ave", widths, 32)
    with pytest.raises(ValueError, match="mode 'none'"):
        UNetDimensions.published("none")
