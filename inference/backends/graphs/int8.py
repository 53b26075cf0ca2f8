"""LipCoordNet's OpenVINO graph with its convolutions in int8, out of float weights and three numbers.

What quantising has to measure is how high the inputs of each convolution go; the rest is in the weights. So weights
ship once, with these numbers in their card, and nothing is needed to quantise them where they run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import openvino as ov

LEVELS = 256  # of an input, from 0 to the highest: pictures and what ReLU leaves are never below 0
HIGHEST_WEIGHT = 127  # of a weight, to both sides
Node = Any  # openvino.Node


def quantise_convolutions(model: ov.Model, highest: Mapping[str, float]) -> None:
    """Have these convolutions of the graph compute in int8.

    highest: by a convolution's name, up to where its inputs are told apart; what lies above becomes that.
    """
    from openvino import opset13 as ops

    found = {node.get_friendly_name(): node for node in model.get_ops()}
    for name, most in highest.items():
        convolution = found[name]
        taken, weights = (port.get_source_output() for port in convolution.inputs())
        convolution.input(1).replace_source_output(store_in_int8(ops, weights.get_node().get_data()).output(0))
        # Ahead of the pooling that a convolution's input may come from: a quarter of the bytes to pool.
        target = convolution.input(0)
        if taken.get_node().get_type_name() == "MaxPool":
            target = taken.get_node().input(0)
        low, high = np.float32(0), np.float32(most)
        target.replace_source_output(
            ops.fake_quantize(target.get_source_output(), low, high, low, high, LEVELS).output(0)
        )
    model.validate_nodes_and_infer_types()


def store_in_int8(ops: Any, weights: npt.NDArray[np.float32]) -> Node:
    """(out, in, ...) weights as int8 times a scale for each output."""
    scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / HIGHEST_WEIGHT
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return ops.multiply(ops.convert(ops.constant(np.rint(weights / scale).astype(np.int8)), np.float32), scale)
