"""What the audio branch of an avatar computes at one place of its map, and how its layers compute it at every place.

The input of the branch has a channel for each of 16 windows and a pixel for each of 256 features. If features repeat
four numbers in a pattern of 2 x 2, every pixel with even coordinates has the same neighbourhood. Let depthwise kernels
have only a middle, let the third convolution take the four pixels from there on, and let the fifth one, of stride 2,
have only a middle: then all places inside the map's edge compute the same function of 16 x 4 numbers. It can be trained
as a network of 175,000 multiplications; the whole branch takes 35 million.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from inference.audio.avatar_features import FEATURE_ROWS
from inference.models.avatar_unet import AudioBranch, InvertedResidual
from inference.models.wav2lip import Conv2d

PATTERN = 2  # side of the pattern of features, in pixels
N_NUMBERS = PATTERN**2  # different numbers for a window
GRID = FEATURE_ROWS  # side of the features' grid: 256 features are 16 x 16 pixels


class Residual(nn.Module):
    """The input plus two linear layers with a ReLU between them: an inverted residual at one place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(torch.relu(self.widen(x)))
        return out


class PlaceNetwork(nn.Module):
    """From 16 windows' features to the numbers of a mouth. widths: of the U-Net, of mode ave."""

    def __init__(self, n_features: int, widths: tuple[int, ...], n_shapes: int) -> None:
        super().__init__()
        _, first, second, wide, deep = widths
        self.numbers = nn.Linear(n_features, N_NUMBERS)
        self.widen1, self.narrow1 = nn.Linear(FEATURE_ROWS, 2 * FEATURE_ROWS), nn.Linear(2 * FEATURE_ROWS, first)
        self.widen2, self.narrow2 = nn.Linear(first, 2 * first), nn.Linear(2 * first, second)
        self.conv3 = nn.Linear(N_NUMBERS * second, wide)
        self.conv4 = Residual(wide)
        self.conv5 = nn.Linear(wide, deep)
        self.conv6, self.conv7 = Residual(deep), Residual(deep)
        self.shape = nn.Linear(deep, n_shapes)

    def forward(self, rows: Tensor) -> Tensor:
        """Return mouths (B, n_shapes) of the rows of 16 windows, (B, 16, n_features)."""
        x = torch.relu(self.numbers(rows)).transpose(1, 2)  # (B, 4, 16)
        x = self.narrow1(torch.relu(self.widen1(x)))
        x = self.narrow2(torch.relu(self.widen2(x)))  # (B, 4, second)
        x = torch.relu(self.conv3(x.flatten(1)))
        x = torch.relu(self.conv5(self.conv4(x)))
        out: Tensor = self.shape(self.conv7(self.conv6(x)))
        return out


def number_at(feature: int) -> int:
    """Return which of the four numbers a feature repeats, by its pixel."""
    row, column = divmod(feature, GRID)
    return row % PATTERN * PATTERN + column % PATTERN


@torch.no_grad()
def fill_last_layer(network: PlaceNetwork, layer: Conv2d) -> None:
    """Set the last layer of a mel encoder to compute the four numbers, in place."""
    conv, norm = cast(nn.Conv2d, layer.conv_block[0]), cast(nn.BatchNorm2d, layer.conv_block[1])
    order = [number_at(feature) for feature in range(conv.weight.shape[0])]
    conv.weight.copy_(network.numbers.weight[order][:, :, None, None])
    cast(Tensor, conv.bias).copy_(network.numbers.bias[order])
    pass_through(norm)


@torch.no_grad()
def fill_branch(network: PlaceNetwork, branch: AudioBranch) -> None:
    """Set the layers of an audio branch to compute the network at every place, in place."""
    fill_residual(network.widen1, network.narrow1, branch.conv1)
    fill_residual(network.widen2, network.narrow2, branch.conv2)
    weight = network.conv3.weight.reshape(len(network.conv3.weight), PATTERN, PATTERN, -1)
    branch.conv3.weight.zero_()
    branch.conv3.weight[:, :, 1:, 1:] = weight.permute(0, 3, 1, 2)  # the pixel itself, those to its right and below
    cast(Tensor, branch.conv3.bias).copy_(network.conv3.bias)
    branch.conv5.weight.zero_()
    branch.conv5.weight[:, :, 1, 1] = network.conv5.weight
    cast(Tensor, branch.conv5.bias).copy_(network.conv5.bias)
    for norm in (branch.bn3, branch.bn5):
        pass_through(norm)
    for own, layer in ((network.conv4, branch.conv4), (network.conv6, branch.conv6), (network.conv7, branch.conv7)):
        fill_residual(own.widen, own.narrow, layer)


def fill_residual(widen: nn.Linear, narrow: nn.Linear, layer: InvertedResidual) -> None:
    """Set an inverted residual to two linear layers with a ReLU between them. Its depthwise layer passes all on."""
    first, norm1, _, depthwise, norm2, _, last, norm3 = layer.conv
    cast(nn.Conv2d, first).weight.copy_(widen.weight[:, :, None, None])
    cast(nn.Conv2d, depthwise).weight.zero_()
    cast(nn.Conv2d, depthwise).weight[:, 0, 1, 1] = 1
    cast(nn.Conv2d, last).weight.copy_(narrow.weight[:, :, None, None])
    pass_through(cast(nn.BatchNorm2d, norm1), widen.bias)
    pass_through(cast(nn.BatchNorm2d, norm2))
    pass_through(cast(nn.BatchNorm2d, norm3), narrow.bias)


def pass_through(norm: nn.BatchNorm2d, bias: Tensor | None = None) -> None:
    """Set a batch norm to add a bias, and nothing else."""
    cast(Tensor, norm.running_mean).zero_()
    cast(Tensor, norm.running_var).fill_(1 - norm.eps)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    if bias is not None:
        norm.bias.copy_(bias)
