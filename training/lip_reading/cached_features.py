"""Clips as features of LipCoordNet's convolutions, computed once.

The convolutions take nine tenths of a training step and, once trained, change little. With their outputs cached, the
recurrent layers see ten times as many samples in the same time. Augmentation of the frames has to come before the
convolutions, so each clip is cached in several views: as it is, and augmented.
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
from training.common.mixed_precision import mixed_precision
from training.common.mouth_packs import MouthClip, decode_crops
from training.lip_reading.augmentation import Augmentation, MouthSample

CachedViews = dict[str, list[MouthSample]]  # by the name of the clip; `frames` are (T, 3072) float16


def load_sample(clip: MouthClip) -> MouthSample:
    return MouthSample(decode_crops(clip), clip.lips, clip.word_indices, clip.word_progress, clip.words, clip.text)


def cache_views(
    network: LipCoordNet,
    clips: Sequence[MouthClip],
    n_views: int,
    augmentation: Augmentation,
    seed: int,
    pool: Executor,
) -> CachedViews:
    """Compute the views of all clips; a view takes about 0.5 MB."""
    compute = partial(compute_views, network, n_views, augmentation)
    seeds = ((seed, i) for i in range(len(clips)))
    return dict(zip((clip.name for clip in clips), pool.map(compute, clips, seeds), strict=True))


def compute_views(
    network: LipCoordNet, n_views: int, augmentation: Augmentation, clip: MouthClip, seed: tuple[int, int]
) -> list[MouthSample]:
    rng = np.random.default_rng(seed)
    plain = load_sample(clip)
    samples = (plain, *(augmentation.augment(plain, rng) for _ in range(n_views - 1)))
    return [to_features(network, sample) for sample in samples]


@torch.no_grad()
def to_features(network: LipCoordNet, sample: MouthSample) -> MouthSample:
    crops = torch.from_numpy(sample.frames).permute(3, 0, 1, 2)[None]
    return replace(sample, frames=convolve(network, crops)[0].half().numpy())


def convolve(network: LipCoordNet, crops: Tensor) -> Tensor:
    """Run the convolutions in mixed precision: uint8 crops (B, 3, T, 64, 128) -> features (B, T, 3072) float32.

    Pooling goes before ReLU and the dropout of whole maps: the result is the same, and they touch a quarter of the
    values.
    """
    x = crops.float() / 255
    with mixed_precision(x.device.type):
        for conv in (network.conv1, network.conv2):
            x = network._drop_maps(torch.relu(network._pool(conv(x))))
        x = torch.relu(network._pool(network.conv3(x)))
    return x.float().permute(0, 2, 1, 3, 4).flatten(2)


def drop_maps(network: LipCoordNet, features: Tensor) -> Tensor:
    """Apply dropout of whole maps to the features of the last convolution, (B, T, 3072)."""
    n_clips, n_frames, n_values = features.shape
    n_maps = network.conv3.out_channels
    maps = features.view(n_clips, n_frames, n_maps, n_values // n_maps, 1).transpose(1, 2)
    dropped: Tensor = network._drop_maps(maps)
    return dropped.transpose(1, 2).reshape(features.shape)
