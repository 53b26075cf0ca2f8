"""Weights that anyone can make again: a rule from names to numbers, which the golden outputs were made with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch


def rng_for(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return rng_for(name).random(shape, dtype=np.float32)


def seeded_tensor(key: str, shape: tuple[int, ...], gain: float = 0.8) -> np.ndarray:
    """One entry of a state dict."""
    f = np.float32
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    x = rng_for(key).standard_normal(shape, dtype=np.float32)
    if key.endswith("running_mean"):
        return f(0.05) * x
    if key.endswith("running_var"):
        return f(1) + f(0.1) * np.abs(x)
    if len(shape) > 1:
        return f(gain * np.sqrt(2.0 / np.prod(shape[1:]))) * x
    if key.endswith(".weight"):
        return f(1) + f(0.1) * x
    return f(0.01) * x


def seeded_state(module: torch.nn.Module, gain: float = 0.8) -> Mapping[str, torch.Tensor]:
    state = module.state_dict()
    return {k: torch.from_numpy(np.asarray(seeded_tensor(k, tuple(v.shape), gain))) for k, v in state.items()}
