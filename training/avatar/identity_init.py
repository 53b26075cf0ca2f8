"""A U-Net whose first answer is the face it was given, and that hears the mouth everywhere on its way up."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from inference.models import AvatarUNet

N_COLOURS = 3
# A straight line through the middle of the sigmoid stays within .05 of what it should give.
SLOPE = 4.4
# Places in an inverted residual: the convolutions that widen, filter and narrow, and the last normalisation.
WIDEN, FILTER, NARROW, LAST_NORM = 0, 3, 6, 7
# How many of the numbers that are told the blocks of the way up carry; there is little room at its end.
CARRIED = (7, 7, 4, 4)


def start_as_copy(unet: AvatarUNet, face: Tensor, heard: Tensor, n_told: int) -> None:
    """Set weights so that colours pass the U-Net's outside, and what it is told its bottom and way up, unchanged.

    In place. face: (B, 6, H, W), some of what it will see; heard: (B, C, H / 32, W / 32), of which the first `n_told`
    channels, 0 and above, say something. The levels of batch normalisation are measured on them. Without it what is
    told at the bottom hardly reaches the picture, and long does not learn to.
    """
    first, last, refine = (
        layers_of(part) for part in (unet.inc.inconv[0], unet.up5.conv.double_conv[0], unet.up5.conv.double_conv[1])
    )
    n_outside = weight_of(first[NARROW]).shape[0]  # channels of the skip, the last of what the last block takes
    kept = let_pass(first, 0, N_COLOURS) | let_pass(last, width_of(last) - n_outside, N_COLOURS)
    kept |= carry(unet.fuse_conv[0], width_of(joint_of(unet)) - heard.shape[1], n_told)
    kept |= carry(unet.fuse_conv[1], 0, n_told)
    for i, n_channels in enumerate(CARRIED, 1):
        kept |= carry(getattr(unet, f"up{i}").conv, 0, min(n_channels, n_told))
    with torch.no_grad():
        for weight in (weight_of(refine[LAST_NORM]), cast(Tensor, refine[LAST_NORM].bias), unet.outc.conv.weight):
            weight.zero_()
        for colour in range(N_COLOURS):
            unet.outc.conv.weight[colour, colour] = SLOPE
        nn.init.constant_(cast(Tensor, unet.outc.conv.bias), -SLOPE / 2)
    hooks = [norm.register_forward_pre_hook(partial(keep_levels, n_channels)) for norm, n_channels in kept.items()]
    measure_levels(unet, face, heard)
    for hook in hooks:
        hook.remove()


def layers_of(residual: nn.Module) -> list[nn.Module]:
    """Of an inverted residual, in order."""
    return list(cast(nn.Sequential, residual.conv))


def joint_of(unet: AvatarUNet) -> list[nn.Module]:
    """The layers that take the face's deepest map and, in the last channels, the audio branch's."""
    return layers_of(cast(nn.Sequential, unet.fuse_conv[0].double_conv)[0])


def weight_of(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def width_of(layers: list[nn.Module]) -> int:
    """Channels that an inverted residual's layers take."""
    return weight_of(layers[WIDEN]).shape[1]


Kept = dict[nn.Module, int]  # batch normalisations, and how many of their first channels keep their levels


def carry(double: nn.Module, first: int, n_channels: int) -> Kept:
    """Channels from `first` on come out as the first ones, of a double convolution, in place."""
    one, other = (layers_of(part) for part in cast(nn.Sequential, double.double_conv))
    with torch.no_grad():
        for weight in (weight_of(other[LAST_NORM]), cast(Tensor, other[LAST_NORM].bias)):
            weight[:n_channels] = 0  # its input is added to what it gives
    return let_pass(one, first, n_channels)


def let_pass(layers: list[nn.Module], first: int, n_channels: int) -> Kept:
    """Channels from `first` on come out as the first ones, of an inverted residual's layers, in place."""
    widen, filters, narrow = (weight_of(layers[i]) for i in (WIDEN, FILTER, NARROW))
    with torch.no_grad():
        for channel in range(n_channels):
            for weight in (widen, filters, narrow):
                weight[channel] = 0
            widen[channel, first + channel] = 1
            filters[channel, 0, 1, 1] = 1
            narrow[channel, channel] = 1
    return {norm: n_channels for norm in layers if isinstance(norm, nn.BatchNorm2d)}


def keep_levels(n_channels: int, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Give the first channels of a batch normalisation the level and spread that they come with."""
    norm = cast(nn.BatchNorm2d, norm)
    levels = given[0].float()
    norm.bias[:n_channels] = levels.mean((0, 2, 3))[:n_channels]
    norm.weight[:n_channels] = (levels.var((0, 2, 3), correction=0) + norm.eps).sqrt()[:n_channels]


@torch.no_grad()
def measure_levels(unet: AvatarUNet, face: Tensor, heard: Tensor) -> None:
    """Have batch normalisation take over the levels of a batch, as a whole, in place."""
    was_training = unet.training
    norms = [module for module in unet.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    unet.train()
    for norm in norms:
        norm.momentum = 1.0
    paint(unet, face, heard)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    unet.train(was_training)


def paint(unet: AvatarUNet, face: Tensor, heard: Tensor) -> Tensor:
    """AvatarUNet.forward from the audio branch's map on, at any size: (B, 3, H, W) of (B, 6, H, W), 0..1."""
    x1 = unet.inc(face)
    x2 = unet.down1(x1)
    x3 = unet.down2(x2)
    x4 = unet.down3(x3)
    x5 = unet.down4(x4)
    x = unet.fuse_conv(torch.cat([unet.down5(x5), heard], dim=1))
    for up, skip in ((unet.up1, x5), (unet.up2, x4), (unet.up3, x3), (unet.up4, x2), (unet.up5, x1)):
        x = up(x, skip)
    return torch.sigmoid(unet.outc(x).float())
