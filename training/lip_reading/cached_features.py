"""Clips as the convolutions show them to the layers behind, made once.

The convolutions take nine tenths of a step and, once they know mouths, change little. With their answers kept, the
layers that read sentences out of them see ten times as many samples in the same time. What pictures are varied by
has to be drawn beforehand, so each clip is shown in several views: as it is, and changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from inference.models import LipCoordNet
from training.lip_reading.augmentation import Augmentation, Sample
from training.lip_reading.mouth_packs import MouthClip, decode_strip

Views = dict[str, list[Sample]]  # by a clip's name; `frames` are (T, 3072) float16


def sample_of(clip: MouthClip) -> Sample:
    return Sample(decode_strip(clip), clip.lips, clip.slots, clip.within, clip.words, clip.text)


def show_views(
    network: LipCoordNet,
    clips: Sequence[MouthClip],
    n_views: int,
    augmentation: Augmentation,
    seed: int,
    pool: Executor,
) -> Views:
    """Some 0.5 MB a view."""
    show = partial(show_clip, network, n_views, augmentation)
    return dict(
        zip((clip.name for clip in clips), pool.map(show, clips, ((seed, i) for i in range(len(clips)))), strict=True)
    )


def show_clip(
    network: LipCoordNet, n_views: int, augmentation: Augmentation, clip: MouthClip, seed: tuple[int, int]
) -> list[Sample]:
    rng = np.random.default_rng(seed)
    plain = sample_of(clip)
    return [show(network, sample) for sample in (plain, *(augmentation.vary(plain, rng) for _ in range(n_views - 1)))]


@torch.no_grad()
def show(network: LipCoordNet, sample: Sample) -> Sample:
    crops = torch.from_numpy(sample.frames).permute(3, 0, 1, 2)[None]
    return replace(sample, frames=show_frames(network, crops)[0].half().numpy())


def show_frames(network: LipCoordNet, crops: Tensor) -> Tensor:
    """The convolutions, in bfloat16: uint8 crops (B, 3, T, 64, 128) -> (B, T, 3072) float32.

    Pooling goes first: ReLU and the dropout of whole maps give the same after it and then touch a quarter of the
    values.
    """
    x = crops.float() / 255
    with torch.autocast(x.device.type, torch.bfloat16):
        for conv in (network.conv1, network.conv2):
            x = network._drop_maps(torch.relu(network._pool(conv(x))))
        x = torch.relu(network._pool(network.conv3(x)))
    return x.float().permute(0, 2, 1, 3, 4).flatten(2)


def drop_maps(network: LipCoordNet, shown: Tensor) -> Tensor:
    """Dropout of whole maps of the last convolution, on (B, T, 3072)."""
    n_clips, n_frames, n_values = shown.shape
    n_maps = network.conv3.out_channels
    maps = shown.view(n_clips, n_frames, n_maps, n_values // n_maps, 1).transpose(1, 2)
    dropped: Tensor = network._drop_maps(maps)
    return dropped.transpose(1, 2).reshape(shown.shape)
