"""LipCoordNet's OpenVINO graph with its convolutions in int8, from float weights and three measured ranges.

Quantisation only has to measure the highest input of each convolution; everything else follows from the weights. So
weights ship once, with these ranges in their card, and are quantised at load time without NNCF.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.backends.graphs.model import Node, import_ops

if TYPE_CHECKING:
    import openvino as ov

LEVELS = 256  # of an input, from 0 to its highest value: images and ReLU outputs are never negative
MAX_WEIGHT_LEVEL = 127  # weights are quantised symmetrically, -127..127


def quantise_convolutions(model: ov.Model, input_ranges: Mapping[str, float]) -> None:
    """Quantise these convolutions of the graph to int8, in place.

    input_ranges: the top of each convolution's input range, by name; larger inputs are clipped to it.
    """
    ops = import_ops()
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    for name, top in input_ranges.items():
        convolution = nodes[name]
        taken, weights = (port.get_source_output() for port in convolution.inputs())
        convolution.input(1).replace_source_output(store_in_int8(ops, weights.get_node().get_data()).output(0))
        # Quantise before the pooling that precedes a convolution: it then pools a quarter of the bytes.
        target = convolution.input(0)
        if taken.get_node().get_type_name() == "MaxPool":
            target = taken.get_node().input(0)
        low, high = np.float32(0), np.float32(top)
        target.replace_source_output(
            ops.fake_quantize(target.get_source_output(), low, high, low, high, LEVELS).output(0)
        )
    model.validate_nodes_and_infer_types()


def store_in_int8(ops: Any, weights: npt.NDArray[np.float32]) -> Node:
    """Return (out, in, ...) weights as int8 times one scale per output channel."""
    scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / MAX_WEIGHT_LEVEL
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return ops.multiply(ops.convert(ops.constant(np.rint(weights / scale).astype(np.int8)), np.float32), scale)
