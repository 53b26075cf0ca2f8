"""LipCoordNet's weights before training, scaled to the clips.

Frames are between 0 and 1 and mostly alike, and lip points are almost constant: two mouths differ by little compared
with what they share, and a network that starts without regard to that hardly learns. So the weights of the first layers
bring their inputs to mean 0 and variance 1, and every layer after them to outputs of variance 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from inference.models import LipCoordNet
from training.common.mouth_packs import MouthClip, decode_crops

N_CLIPS = 8  # clips to measure means and deviations on
MIN_DEVIATION = 1e-4  # lower bound of a standard deviation, for inputs that hardly vary


@torch.no_grad()
def initialise_network(clips: Sequence[MouthClip], seed: int) -> LipCoordNet:
    """Return a network with random weights scaled to the clips; the same for the same seed."""
    torch.manual_seed(seed)
    network = LipCoordNet().eval()
    chosen = [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))[:N_CLIPS]]
    frames = np.stack([decode_crops(clip) for clip in chosen])  # (B, T, H, W, 3)
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
    lips = torch.from_numpy(np.stack([clip.lips for clip in chosen])).flatten(2)  # (B, T, 40)
    standardise_inputs(network.conv1, x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4)))
    for conv in (network.conv1, network.conv2, network.conv3):
        x = standardise_outputs(conv, x)
        x = torch.relu(network._pool(x))
    features = x.permute(0, 2, 1, 3, 4).flatten(2).flatten(0, 1)  # (B * T, 3072)
    for suffix in ("", "_reverse"):
        standardise_gru_inputs(network.gru1, suffix, features.mean(0), features.std())
        standardise_gru_inputs(network.coord_gru, suffix, lips.flatten(0, 1).mean(0), lips.flatten(0, 1).std(0))
    return network


def standardise_inputs(conv: nn.Conv3d, mean: Tensor, deviation: Tensor) -> None:
    """Scale a layer as if its inputs had mean 0 and variance 1 in each channel. Exact except at the borders."""
    conv.weight /= deviation.clamp(min=MIN_DEVIATION).view(1, -1, 1, 1, 1)
    assert conv.bias is not None
    conv.bias -= (conv.weight * mean.view(1, -1, 1, 1, 1)).sum((1, 2, 3, 4))


def standardise_outputs(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Scale a layer so that each of its output channels has mean 0 and variance 1 over `x`. Return those outputs."""
    assert conv.bias is not None
    y: Tensor = conv(x)
    mean, deviation = y.mean((0, 2, 3, 4)), y.std((0, 2, 3, 4)).clamp(min=MIN_DEVIATION)
    conv.weight /= deviation.view(-1, 1, 1, 1, 1)
    conv.bias.copy_((conv.bias - mean) / deviation)
    return (y - mean.view(1, -1, 1, 1, 1)) / deviation.view(1, -1, 1, 1, 1)


def standardise_gru_inputs(gru: nn.GRU, suffix: str, mean: Tensor, deviation: Tensor) -> None:
    """Scale one direction of a recurrent layer as if its inputs had mean 0 and variance 1."""
    weight, bias = getattr(gru, f"weight_ih_l0{suffix}"), getattr(gru, f"bias_ih_l0{suffix}")
    weight /= deviation.clamp(min=MIN_DEVIATION)
    bias -= weight @ mean
