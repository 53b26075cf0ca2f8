"""LipCoordNet as an ONNX graph, put together node by node.

torch's own exporter (2.13, dynamo, dynamic_shapes) writes the example's number of frames into the
reshapes behind each GRU, so that its file reads clips of one length only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from inference.backends.graphs.lip_coord_net import CONVOLUTIONS, DIRECTIONS, Array, gates_in_onnx_order
from inference.errors import InvalidRequest
from inference.models.lip_coord_net import COORD_WIDTH, GRU_WIDTH, N_CLASSES, N_LIP_POINTS
from inference.weights.cache import whole_file

OPSET = 17
IR_VERSION = 8  # the oldest that knows this opset: the file opens in old runtimes too
POOL = {"kernel_shape": (1, 2, 2), "strides": (1, 2, 2)}


def write_onnx(state: Mapping[str, Tensor], path: Path, about: dict[str, str], *, is_half: bool) -> None:
    """Write the network with these weights; half: stored as float16, widened to float32 when it is loaded.

    Raises: InvalidRequest where the package onnx is not installed.
    """
    onnx = import_onnx()
    graph = Graph(onnx, is_half=is_half)
    build(graph, {key: value.float().numpy() for key, value in state.items()})
    model = graph.as_model(about)
    onnx.checker.check_model(model, full_check=True)
    with whole_file(path) as part:
        onnx.save_model(model, str(part))


def import_onnx() -> ModuleType:
    try:
        import onnx
    except ImportError as err:
        raise InvalidRequest("--to onnx needs the package onnx: pip install 'viseme[onnx]'") from err
    module: ModuleType = onnx
    return module


class Graph:
    """Nodes and weights as they are added; every method returns the name of what it added."""

    def __init__(self, onnx: ModuleType, *, is_half: bool) -> None:
        self._onnx = onnx
        self._is_half = is_half
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def add_weight(self, name: str, value: Array) -> str:
        if not self._is_half or value.dtype != np.float32:
            self._weights.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
            return name
        stored = f"{name}.f16"
        self._weights.append(self._onnx.numpy_helper.from_array(value.astype(np.float16), stored))
        return self.add("Cast", [stored], name, to=self._onnx.TensorProto.FLOAT)

    def as_model(self, about: dict[str, str]) -> Any:
        helper, float32 = self._onnx.helper, self._onnx.TensorProto.FLOAT
        inputs = [
            helper.make_tensor_value_info("video", float32, ["batch", 3, "time", 64, 128]),
            helper.make_tensor_value_info("lips", float32, ["batch", "time", N_LIP_POINTS, 2]),
        ]
        output = helper.make_tensor_value_info("logits", float32, ["batch", "time", N_CLASSES])
        graph = helper.make_graph(self._nodes, "LipCoordNet", inputs, [output], self._weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="viseme")
        helper.set_model_props(model, about)
        return model


def build(graph: Graph, state: Mapping[str, Array]) -> None:
    """The forward pass of the module, in its order."""
    flat = graph.add_weight("flat", np.array([0, 0, -1], np.int64))  # keeps the first two axes, joins the rest
    x = "video"
    for name in CONVOLUTIONS:
        x = add_convolution(graph, state, name, x)
    x = graph.add("Transpose", [x], "by_time", perm=(2, 0, 1, 3, 4))  # (T, B, C, H, W)
    x = graph.add("Reshape", [x, flat], "features")
    x = add_gru(graph, state, "gru1", x, GRU_WIDTH, flat)
    x = add_gru(graph, state, "gru2", x, GRU_WIDTH, flat)
    lips = graph.add("Transpose", ["lips"], "lips_by_time", perm=(1, 0, 2, 3))
    lips = graph.add("Reshape", [lips, flat], "lip_features")  # (T, B, 40): x0, y0, x1, y1, ...
    lips = add_gru(graph, state, "coord_gru", lips, COORD_WIDTH, flat)
    both = graph.add("Concat", [x, lips], "both", axis=2)
    weight = graph.add_weight("FC.weight", state["FC.weight"].T)
    scores = graph.add("MatMul", [both, weight], "scores")
    scores = graph.add("Add", [scores, graph.add_weight("FC.bias", state["FC.bias"])], "logits_by_time")
    graph.add("Transpose", [scores], "logits", perm=(1, 0, 2))


def add_convolution(graph: Graph, state: Mapping[str, Array], name: str, x: str) -> str:
    kernel, stride, padding = CONVOLUTIONS[name]
    weights = [graph.add_weight(f"{name}.{part}", state[f"{name}.{part}"]) for part in ("weight", "bias")]
    x = graph.add("Conv", [x, *weights], name, kernel_shape=kernel, strides=stride, pads=padding * 2)
    x = graph.add("Relu", [x], f"{name}.relu")
    return graph.add("MaxPool", [x], f"{name}.pool", **POOL)


def add_gru(graph: Graph, state: Mapping[str, Array], name: str, x: str, width: int, flat: str) -> str:
    """A bidirectional GRU: (T, B, n) -> (T, B, 2 * width)."""

    def both(part: str) -> Array:
        return np.stack([gates_in_onnx_order(state[f"{name}.{part}_l0{way}"]) for way in DIRECTIONS])

    weights = [
        graph.add_weight(f"{name}.W", both("weight_ih")),
        graph.add_weight(f"{name}.R", both("weight_hh")),
        graph.add_weight(f"{name}.B", np.concatenate([both("bias_ih"), both("bias_hh")], axis=1)),
    ]
    # linear_before_reset: torch applies the reset gate behind the product with the hidden state
    y = graph.add("GRU", [x, *weights], name, hidden_size=width, direction="bidirectional", linear_before_reset=1)
    y = graph.add("Transpose", [y], f"{name}.by_batch", perm=(0, 2, 1, 3))  # (T, 2, B, width) -> (T, B, 2, width)
    return graph.add("Reshape", [y, flat], f"{name}.out")
