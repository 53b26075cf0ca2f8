"""Convolutions with their batch norms folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inference.backends.graphs.model import Array
from inference.dimensions.layers import ConvLayer

EPSILON = 1e-5  # of torch's batch norms


@dataclass(frozen=True)
class FoldedConv:
    """A convolution with its batch norm folded in.

    weight: (out, in / groups, h, w); (in, out, h, w) if it is transposed. bias: (out,). Both are float32.
    """

    layer: ConvLayer
    weight: Array
    bias: Array


def fold(weights: Mapping[str, Array], layer: ConvLayer) -> FoldedConv:
    """Fold a convolution and its batch norm, if it has one, into one convolution.

    weights: float32 arrays by the names of torch's state dict.
    """
    weight = weights[f"{layer.name}.weight"]
    bias = weights[f"{layer.name}.bias"] if layer.has_bias else np.zeros(layer.n_out, np.float32)
    if layer.norm is not None:
        scale = weights[f"{layer.norm}.weight"] / np.sqrt(weights[f"{layer.norm}.running_var"] + EPSILON)
        weight = weight * (scale[None, :, None, None] if layer.is_transposed else scale[:, None, None, None])
        bias = (bias - weights[f"{layer.norm}.running_mean"]) * scale + weights[f"{layer.norm}.bias"]
    return FoldedConv(layer, weight.astype(np.float32, copy=False), bias.astype(np.float32, copy=False))
