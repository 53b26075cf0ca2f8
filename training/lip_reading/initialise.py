"""LipCoordNet's weights before any training, scaled to the clips that it will see.

Pictures are between 0 and 1 and mostly alike, lip points all but constant: what differs between two mouths is small
beside what they have in common, and a network started without regard to that hardly moves. So inputs are brought to
mean 0 and variance 1 within the first layers' weights, and every layer that follows to outputs of variance 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from inference.models import LipCoordNet
from training.lip_reading.mouth_packs import MouthClip, decode_strip

N_SEEN = 8  # clips
LEAST_SPREAD = 1e-4  # of an input that hardly moves


@torch.no_grad()
def start_fresh(clips: Sequence[MouthClip], seed: int) -> LipCoordNet:
    """A network with random weights that suit the clips; the same for the same seed."""
    torch.manual_seed(seed)
    network = LipCoordNet().eval()
    chosen = [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))[:N_SEEN]]
    frames = np.stack([decode_strip(clip) for clip in chosen])  # (B, T, H, W, 3)
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
    lips = torch.from_numpy(np.stack([clip.lips for clip in chosen])).flatten(2)  # (B, T, 40)
    take_in(network.conv1, x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4)))
    for conv in (network.conv1, network.conv2, network.conv3):
        x = even_out(conv, x)
        x = torch.relu(network._pool(x))
    shown = x.permute(0, 2, 1, 3, 4).flatten(2).flatten(0, 1)  # (B * T, 3072)
    for way in ("", "_reverse"):
        take_in_gru(network.gru1, way, shown.mean(0), shown.std())
        take_in_gru(network.coord_gru, way, lips.flatten(0, 1).mean(0), lips.flatten(0, 1).std(0))
    return network


def take_in(conv: nn.Conv3d, mean: Tensor, spread: Tensor) -> None:
    """Have a layer take its inputs, by channel, as if they had mean 0 and variance 1; but for its borders."""
    conv.weight /= spread.clamp(min=LEAST_SPREAD).view(1, -1, 1, 1, 1)
    assert conv.bias is not None
    conv.bias -= (conv.weight * mean.view(1, -1, 1, 1, 1)).sum((1, 2, 3, 4))


def even_out(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Scale a layer so that each of its outputs has mean 0 and variance 1 over `x`; returns these outputs."""
    assert conv.bias is not None
    y: Tensor = conv(x)
    mean, spread = y.mean((0, 2, 3, 4)), y.std((0, 2, 3, 4)).clamp(min=LEAST_SPREAD)
    conv.weight /= spread.view(-1, 1, 1, 1, 1)
    conv.bias.copy_((conv.bias - mean) / spread)
    return (y - mean.view(1, -1, 1, 1, 1)) / spread.view(1, -1, 1, 1, 1)


def take_in_gru(gru: nn.GRU, way: str, mean: Tensor, spread: Tensor) -> None:
    """The same for a recurrent layer's inputs, in one direction."""
    weight, bias = getattr(gru, f"weight_ih_l0{way}"), getattr(gru, f"bias_ih_l0{way}")
    weight /= spread.clamp(min=LEAST_SPREAD)
    bias -= weight @ mean
