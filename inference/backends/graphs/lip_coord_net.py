"""LipCoordNet as an OpenVINO graph, built node by node.

OpenVINO's conversion of the torch module takes 1.6 s and 190 MB at each start; this takes 0.3 s and 50 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.graphs.model import Array, Node, as_float32, import_ops, make_model
from inference.dimensions.lip_coord_net import COORD_WIDTH, DIRECTIONS, GRU_WIDTH, N_LIP_POINTS

if TYPE_CHECKING:
    import openvino as ov

# stride and padding (on each side) of the convolutions, in time, height, width: as in the module
CONVOLUTIONS = {
    "conv1": ((1, 2, 2), (1, 2, 2)),
    "conv2": ((1, 1, 1), (1, 2, 2)),
    "conv3": ((1, 1, 1), (1, 1, 1)),
}
N_DIRECTIONS = len(DIRECTIONS)
FIRST_GRU = "gru1"


def build_lip_coord_net(state: Mapping[str, Any]) -> ov.Model:
    """Build the network with these weights, tensors or arrays, for any batch and length.

    Inputs: video (B, 3, T, 64, 128), lips (B, T, 20, 2); output: logits (B, T, 28); all float32.
    """
    ops = import_ops()
    weights = as_float32(state)
    video = ops.parameter([-1, 3, -1, 64, 128], np.float32)
    lips = ops.parameter([-1, -1, N_LIP_POINTS, 2], np.float32)
    x = video
    for name in CONVOLUTIONS:
        x = add_convolution(ops, weights, name, x)
    x = flatten(ops, ops.transpose(x, np.array([0, 2, 1, 3, 4])))  # (B, T, C * H * W)
    x = add_gru(ops, weights, FIRST_GRU, x, GRU_WIDTH)
    x = add_gru(ops, weights, "gru2", x, GRU_WIDTH)
    both = ops.concat([x, add_gru(ops, weights, "coord_gru", flatten(ops, lips), COORD_WIDTH)], 2)
    scores = ops.matmul(both, weights["FC.weight"], transpose_a=False, transpose_b=True)
    logits = ops.add(scores, weights["FC.bias"])
    return make_model([logits], [video, lips], ("video", "lips", "logits"), "LipCoordNet")


def flatten(ops: Any, x: Node) -> Node:
    """Keep the first two axes and join the rest."""
    return ops.reshape(x, np.array([0, 0, -1]), special_zero=True)


def add_convolution(ops: Any, weights: Mapping[str, Array], name: str, x: Node) -> Node:
    """Add a convolution with bias, ReLU, and pooling that halves height and width."""
    stride, padding = CONVOLUTIONS[name]
    x = ops.convolution(x, weights[f"{name}.weight"], stride, padding, padding, (1, 1, 1), name=name)
    x = ops.relu(ops.add(x, weights[f"{name}.bias"].reshape(1, -1, 1, 1, 1)))
    no_padding = (0, 0, 0)
    return ops.max_pool(x, (1, 2, 2), (1, 1, 1), no_padding, no_padding, (1, 2, 2)).output(0)


def add_gru(ops: Any, weights: Mapping[str, Array], name: str, x: Node, width: int) -> Node:
    """Add a bidirectional GRU: (B, T, n) -> (B, T, 2 * width)."""

    def both(part: str) -> Array:
        return np.stack([gates_in_openvino_order(weights[f"{name}.{part}_l0{suffix}"]) for suffix in DIRECTIONS])

    shape = ops.shape_of(x)
    n_clips = ops.gather(shape, np.array([0]), np.array(0))
    n_frames = ops.gather(shape, np.array([1]), np.array(0))
    start = ops.broadcast(np.float32(0), ops.concat([n_clips, np.array([N_DIRECTIONS, width])], 0))
    y = ops.gru_sequence(
        x,
        start,
        ops.broadcast(n_frames, n_clips),
        both("weight_ih"),
        both("weight_hh"),
        join_biases(both("bias_ih"), both("bias_hh"), width),
        width,
        "bidirectional",
        linear_before_reset=True,  # torch applies the reset gate after the product with the hidden state
        name=name,
    ).output(0)
    return flatten(ops, ops.transpose(y, np.array([0, 2, 1, 3])))  # (B, 2, T, width) -> (B, T, 2 * width)


def gates_in_openvino_order(rows: Array) -> Array:
    """Reorder a GRU's rows: torch stacks reset, update, new; OpenVINO update, reset, new."""
    reset, update, new = np.split(rows, 3)
    return np.concatenate([update, reset, new])


def join_biases(of_input: Array, of_state: Array, width: int) -> Array:
    """Join (2, 3 * width) each, gates update, reset, new, to (2, 4 * width): the first two gates are summed."""
    summed = of_input[:, : 2 * width] + of_state[:, : 2 * width]
    return np.concatenate([summed, of_input[:, 2 * width :], of_state[:, 2 * width :]], axis=1)
