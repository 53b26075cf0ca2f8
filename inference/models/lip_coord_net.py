"""LipCoordNet: from mouth crops and lip landmarks to characters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.dimensions.lip_coord_net import (
    CONV_WIDTHS,
    COORD_WIDTH,
    GRU_WIDTH,
    MAP_HEIGHT,
    MAP_WIDTH,
    N_CLASSES,
    N_LIP_POINTS,
)

DROPOUT = 0.5


class LipCoordNet(nn.Module):
    """Three 3-D convolutions and two GRUs over the mouth, one GRU over the lip points, one linear layer.

    Source: SilentSpeak/LipCoordNet model.py (parameter names, order of layers, 6,776,572 parameters).
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CONV_WIDTHS
        self.conv1 = nn.Conv3d(3, first, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.conv2 = nn.Conv3d(first, second, (3, 5, 5), (1, 1, 1), (1, 2, 2))
        self.conv3 = nn.Conv3d(second, third, (3, 3, 3), (1, 1, 1), (1, 1, 1))
        self.gru1 = nn.GRU(third * MAP_HEIGHT * MAP_WIDTH, GRU_WIDTH, bidirectional=True)
        self.gru2 = nn.GRU(2 * GRU_WIDTH, GRU_WIDTH, bidirectional=True)
        self.FC = nn.Linear(2 * GRU_WIDTH + 2 * COORD_WIDTH, N_CLASSES)
        self.coord_gru = nn.GRU(2 * N_LIP_POINTS, COORD_WIDTH, bidirectional=True)
        self._pool = nn.MaxPool3d((1, 2, 2), (1, 2, 2))
        self._drop = nn.Dropout(DROPOUT)
        self._drop_maps = nn.Dropout3d(DROPOUT)

    def forward(self, x: Tensor, coords: Tensor) -> Tensor:
        """Return logits of each frame, before softmax: (B, T, 28); class 0 is the blank, 1 the space.

        x: (B, 3, T, 64, 128) float, BGR / 255.
        coords: (B, T, 20, 2) float, lip points 48..67 as x / frame width, y / frame height.
        """
        for convolution in self.convolutions:
            x = self.convolve(convolution, x)
        return self.decode(join_maps(x), coords)

    @property
    def convolutions(self) -> tuple[nn.Conv3d, nn.Conv3d, nn.Conv3d]:
        """The convolutions, in order."""
        return self.conv1, self.conv2, self.conv3

    def convolve(self, convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply one convolution, ReLU and pooling: (B, C, T, H, W) -> (B, C', T, H', W')."""
        pooled: Tensor = self._pool(self._drop_maps(torch.relu(convolution(x))))
        return pooled

    def decode(self, features: Tensor, coords: Tensor) -> Tensor:
        """Return the logits of features (B, T, 3072) and lip points (B, T, 20, 2): (B, T, 28)."""
        x = features.transpose(0, 1)  # (T, B, C * H * W)
        x = self._drop(self.gru1(x)[0])
        x = self._drop(self.gru2(x)[0])
        lips = coords.permute(1, 0, 2, 3).flatten(2)  # (T, B, 40): x0, y0, x1, y1, ...
        lips = self._drop(self.coord_gru(lips)[0])
        logits: Tensor = self.FC(torch.cat([x, lips], dim=2))
        return logits.transpose(0, 1)


def join_maps(x: Tensor) -> Tensor:
    """Return the features of each frame: (B, C, T, H, W) -> (B, T, C * H * W)."""
    return x.transpose(1, 2).flatten(2)


class ConvolutionStage(nn.Module):
    """One convolution of a network with ReLU and pooling; the last one gives features, (B, T, 3072)."""

    def __init__(self, network: LipCoordNet, index: int) -> None:
        super().__init__()
        self.network = network
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the frames of (B, C, T, H, W)."""
        x = self.network.convolve(self.network.convolutions[self._index], x)
        return join_maps(x) if self._index == len(self.network.convolutions) - 1 else x


class HeldFrameStage(nn.Module):
    """The convolutions of videos that show one frame throughout: their weights, summed over time."""

    def __init__(self, network: LipCoordNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, T, 3072) of each frame of (B, 3, T, 64, 128)."""
        for convolution in self.network.convolutions:
            x = self.network.convolve(partial(convolve_held, convolution), x)
        return join_maps(x)


def convolve_held(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    """Convolve each frame as if it was shown throughout."""
    weight = convolution.weight.sum(dim=2, keepdim=True)
    assert isinstance(convolution.padding, tuple)
    return functional.conv3d(x, weight, convolution.bias, convolution.stride, (0, *convolution.padding[1:]))


class RecurrenceStage(nn.Module):
    """All that follows the convolutions."""

    def __init__(self, network: LipCoordNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, coords: Tensor) -> Tensor:
        """Return logits (B, T, 28)."""
        return self.network.decode(features, coords)
