"""Initial weights of a U-Net that outputs its input face and passes the mouth shape to every scale of its decoder."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from inference.models import AvatarUNet

N_COLOURS = 3
# Slope of a line through the middle of the sigmoid, whose result is within .05 of the identity.
SLOPE = 4.4
# Indices in an inverted residual: the convolutions that widen, filter and narrow, and the last normalisation.
WIDEN, FILTER, NARROW, LAST_NORM = 0, 3, 6, 7
# Numbers of the mouth shape that each block of the decoder passes on; the last ones have few channels.
SHAPE_CHANNELS = (7, 7, 4, 4)


def initialise_as_identity(unet: AvatarUNet, face: Tensor, shape_map: Tensor, n_shapes: int) -> None:
    """Set weights that pass colours through the outer blocks, and the mouth shape from the bottom up the decoder.

    In place. face: (B, 6, H, W), examples of its input. shape_map: (B, C, H / 32, W / 32), of which the first
    `n_shapes` channels contain the mouth shape, 0 or more. The statistics of batch norms are measured on these. Without
    this, the shape at the bottom hardly affects the output, and training is slow to change that.
    """
    first, last, refine = (
        layers_of(part) for part in (unet.inc.inconv[0], unet.up5.conv.double_conv[0], unet.up5.conv.double_conv[1])
    )
    n_skip = weight_of(first[NARROW]).shape[0]  # channels of the outermost skip, the last inputs of the last block
    passed = pass_channels(first, 0, N_COLOURS) | pass_channels(last, n_inputs(last) - n_skip, N_COLOURS)
    passed |= pass_through_block(unet.fuse_conv[0], n_inputs(fusion_layers(unet)) - shape_map.shape[1], n_shapes)
    passed |= pass_through_block(unet.fuse_conv[1], 0, n_shapes)
    for i, n_channels in enumerate(SHAPE_CHANNELS, 1):
        passed |= pass_through_block(getattr(unet, f"up{i}").conv, 0, min(n_channels, n_shapes))
    with torch.no_grad():
        for weight in (weight_of(refine[LAST_NORM]), cast(Tensor, refine[LAST_NORM].bias), unet.outc.conv.weight):
            weight.zero_()
        for colour in range(N_COLOURS):
            unet.outc.conv.weight[colour, colour] = SLOPE
        nn.init.constant_(cast(Tensor, unet.outc.conv.bias), -SLOPE / 2)
    hooks = [
        norm.register_forward_pre_hook(partial(preserve_statistics, n_channels)) for norm, n_channels in passed.items()
    ]
    measure_statistics(unet, face, shape_map)
    for hook in hooks:
        hook.remove()


def layers_of(residual: nn.Module) -> list[nn.Module]:
    """Return the layers of an inverted residual, in order."""
    return list(cast(nn.Sequential, residual.conv))


def fusion_layers(unet: AvatarUNet) -> list[nn.Module]:
    """Return the layers whose input is the face's deepest map and, in the last channels, the audio branch's."""
    return layers_of(cast(nn.Sequential, unet.fuse_conv[0].double_conv)[0])


def weight_of(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def n_inputs(layers: list[nn.Module]) -> int:
    """Return the number of input channels of an inverted residual's layers."""
    return weight_of(layers[WIDEN]).shape[1]


PassedChannels = dict[nn.Module, int]  # by batch norm: how many of its first channels keep their statistics


def pass_through_block(double: nn.Module, first: int, n_channels: int) -> PassedChannels:
    """Set weights of a double convolution, so that input channels from `first` on become its first outputs."""
    one, other = (layers_of(part) for part in cast(nn.Sequential, double.double_conv))
    with torch.no_grad():
        for weight in (weight_of(other[LAST_NORM]), cast(Tensor, other[LAST_NORM].bias)):
            weight[:n_channels] = 0  # a residual: its input is added to its output
    return pass_channels(one, first, n_channels)


def pass_channels(layers: list[nn.Module], first: int, n_channels: int) -> PassedChannels:
    """Set weights of an inverted residual, so that input channels from `first` on become its first outputs."""
    widen, filters, narrow = (weight_of(layers[i]) for i in (WIDEN, FILTER, NARROW))
    with torch.no_grad():
        for channel in range(n_channels):
            for weight in (widen, filters, narrow):
                weight[channel] = 0
            widen[channel, first + channel] = 1
            filters[channel, 0, 1, 1] = 1
            narrow[channel, channel] = 1
    return {norm: n_channels for norm in layers if isinstance(norm, nn.BatchNorm2d)}


def preserve_statistics(n_channels: int, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Set a batch norm's first channels to keep the mean and deviation of their input."""
    norm = cast(nn.BatchNorm2d, norm)
    levels = inputs[0].float()
    norm.bias[:n_channels] = levels.mean((0, 2, 3))[:n_channels]
    norm.weight[:n_channels] = (levels.var((0, 2, 3), correction=0) + norm.eps).sqrt()[:n_channels]


@torch.no_grad()
def measure_statistics(unet: AvatarUNet, face: Tensor, shape_map: Tensor) -> None:
    """Set the running statistics of all batch norms to those of one batch, in place."""
    was_training = unet.training
    norms = [module for module in unet.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    unet.train()
    for norm in norms:
        norm.momentum = 1.0
    generate(unet, face, shape_map)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    unet.train(was_training)


def generate(unet: AvatarUNet, face: Tensor, audio_map: Tensor) -> Tensor:
    """Run AvatarUNet.forward from the audio branch's map on, at any size: (B, 3, H, W) of (B, 6, H, W), 0..1."""
    x1 = unet.inc(face)
    x2 = unet.down1(x1)
    x3 = unet.down2(x2)
    x4 = unet.down3(x3)
    x5 = unet.down4(x4)
    x = unet.fuse_conv(torch.cat([unet.down5(x5), audio_map], dim=1))
    for up, skip in ((unet.up1, x5), (unet.up2, x4), (unet.up3, x3), (unet.up4, x2), (unet.up5, x1)):
        x = up(x, skip)
    return torch.sigmoid(unet.outc(x).float())
