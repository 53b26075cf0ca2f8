"""LipCoordNet as an OpenVINO graph, put together node by node.

OpenVINO can trace a torch module, too, but that takes over a second of every start; this takes a twentieth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from inference.models.lip_coord_net import COORD_WIDTH, GRU_WIDTH, N_LIP_POINTS

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
Node = Any  # openvino.Node
# kernel, stride, padding (of each side) of the convolutions, in time, height, width: as in the module
CONVOLUTIONS = {
    "conv1": ((3, 5, 5), (1, 2, 2), (1, 2, 2)),
    "conv2": ((3, 5, 5), (1, 1, 1), (1, 2, 2)),
    "conv3": ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
}
DIRECTIONS = ("", "_reverse")
N_DIRECTIONS = len(DIRECTIONS)
FIRST_GRU = "gru1"


def build_openvino(state: Mapping[str, Tensor]) -> ov.Model:
    """The network with these weights, for any batch and length.

    Inputs: video (B, 3, T, 64, 128), lips (B, T, 20, 2); output: logits (B, T, 28); all float32.
    """
    import openvino as ov
    from openvino import opset13 as ops

    weights = {key: value.float().numpy() for key, value in state.items()}
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
    model = ov.Model([logits], [video, lips], "LipCoordNet")
    for port, name in zip((*model.inputs, *model.outputs), ("video", "lips", "logits"), strict=True):
        port.get_tensor().set_names({name})
    return model


def split_at_time(model: ov.Model) -> tuple[ov.Model, ov.Model]:
    """The same in two: video -> what each frame shows, (B, T, 3072); that and the lips -> logits.

    The graph itself is taken apart for it and of no use afterwards.
    """
    import openvino as ov
    from openvino import opset13 as ops

    first = next(node for node in model.get_ops() if node.get_friendly_name() == FIRST_GRU)
    shown = first.input(0).get_source_output()
    entry = ops.parameter(shown.get_partial_shape(), np.float32)
    for target in shown.get_target_inputs():
        target.replace_source_output(entry.output(0))
    video, lips = model.get_parameters()
    return ov.Model([shown], [video], "frames"), ov.Model(model.get_results(), [entry, lips], "time")


def flatten(ops: Any, x: Node) -> Node:
    """Keep the first two axes and join the rest."""
    return ops.reshape(x, np.array([0, 0, -1]), special_zero=True)


def add_convolution(ops: Any, weights: Mapping[str, Array], name: str, x: Node) -> Node:
    """A convolution, its bias, ReLU, and the halving of height and width."""
    _, stride, padding = CONVOLUTIONS[name]
    x = ops.convolution(x, weights[f"{name}.weight"], stride, padding, padding, (1, 1, 1), name=name)
    x = ops.relu(ops.add(x, weights[f"{name}.bias"].reshape(1, -1, 1, 1, 1)))
    none = (0, 0, 0)
    return ops.max_pool(x, (1, 2, 2), (1, 1, 1), none, none, (1, 2, 2)).output(0)


def add_gru(ops: Any, weights: Mapping[str, Array], name: str, x: Node, width: int) -> Node:
    """A bidirectional GRU: (B, T, n) -> (B, T, 2 * width)."""

    def both(part: str) -> Array:
        return np.stack([gates_in_onnx_order(weights[f"{name}.{part}_l0{way}"]) for way in DIRECTIONS])

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
        linear_before_reset=True,  # torch applies the reset gate behind the product with the hidden state
        name=name,
    ).output(0)
    return flatten(ops, ops.transpose(y, np.array([0, 2, 1, 3])))  # (B, 2, T, width) -> (B, T, 2 * width)


def join_biases(of_input: Array, of_state: Array, width: int) -> Array:
    """(2, 3 * width) each, gates update, reset, new -> (2, 4 * width): those of the first two summed."""
    summed = of_input[:, : 2 * width] + of_state[:, : 2 * width]
    return np.concatenate([summed, of_input[:, 2 * width :], of_state[:, 2 * width :]], axis=1)


def gates_in_onnx_order(rows: Array) -> Array:
    """Torch stacks reset, update, new; ONNX update, reset, new."""
    reset, update, new = np.split(rows, 3)
    return np.concatenate([update, reset, new])
