"""LipCoordNet's OpenVINO graph in stages: each convolution, the products of the first GRU's input, and the rest.

The stages let windows that overlap share their work: see `inference/lip_reading/window_features.py`. GRUs become loops
over two directions at once, which take half of the time of OpenVINO's `GRUSequence` for a single clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.graphs.lip_coord_net import CONVOLUTIONS, FIRST_GRU, N_DIRECTIONS, flatten
from inference.backends.graphs.lip_coord_net_int8 import store_in_int8
from inference.backends.graphs.model import Array, Node, import_ops, make_model
from inference.backends.telemetry import import_openvino
from inference.dimensions.lip_coord_net import N_LIP_POINTS

if TYPE_CHECKING:
    import openvino as ov

LAST_CONVOLUTION = list(CONVOLUTIONS)[-1]


@dataclass(frozen=True)
class StageGraphs:
    """Graphs of float32 arrays, in the order in which they are computed.

    convolutions: (B, C, T, H, W) -> (B, C', T, H', W'), zeros before and after the first and last frame; the last one
    gives features, (B, T, 3072). projection: features -> (B, T, 1536). recurrence: these and lips (B, T, 20, 2) ->
    logits (B, T, 28). held: (B, 3, T, 64, 128) -> features (B, T, 3072) of each frame, if it is shown throughout.
    """

    convolutions: tuple[ov.Model, ...]
    projection: ov.Model
    recurrence: ov.Model
    held: ov.Model


def split_stages(model: ov.Model) -> StageGraphs:
    """Split a graph that `build_lip_coord_net` made, quantised or not. It can't be used afterwards."""
    held, nodes = build_held(model.clone()), name_nodes(model)
    projection, recurrence = build_projection(nodes[FIRST_GRU]), build_recurrence(nodes, model.get_results()[0])
    return StageGraphs(split_convolutions(model, nodes), projection, recurrence, held)


def name_nodes(model: ov.Model) -> dict[str, Node]:
    """Return the nodes of a graph by their names."""
    return {node.get_friendly_name(): node for node in model.get_ops()}


def build_held(model: ov.Model) -> ov.Model:
    """Build the convolutions of a video that shows one frame throughout: their weights, summed over time.

    They cost a third. In int8 the sums are quantised again, so that features differ by half a level of the weights.
    """
    model_class, ops, nodes = import_openvino().Model, import_ops(), name_nodes(model)
    for name, (stride, padding) in CONVOLUTIONS.items():
        node = nodes[name]
        of_frame = constant_value(node.input(1)).sum(axis=2, keepdims=True)
        is_int8 = node.input(1).get_source_output().get_node().get_type_name() == "Multiply"
        weights = store_in_int8(ops, of_frame) if is_int8 else of_frame
        in_frame = (0, *padding[1:])
        source = node.input(0).get_source_output()
        replaced = ops.convolution(source, weights, stride, in_frame, in_frame, (1, 1, 1)).output(0)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(replaced)
    features = nodes[FIRST_GRU].input(0).get_source_output()
    return model_class([features], [model.get_parameters()[0]], "held")


def split_convolutions(model: ov.Model, nodes: dict[str, Node]) -> tuple[ov.Model, ...]:
    """Split the graph in front of each convolution but the first, and behind the last."""
    model_class, ops = import_openvino().Model, import_ops()
    (entry, *_), last = model.get_parameters(), nodes[FIRST_GRU].input(0).get_source_output()
    graphs = []
    for name in list(CONVOLUTIONS)[1:]:
        target = nodes[name].input(0)
        pooled = target.get_source_output()
        following = ops.parameter(pooled.get_partial_shape(), np.float32)
        target.replace_source_output(requantise(ops, pooled, following).output(0))
        graphs.append(model_class([pooled], [entry], name))
        entry = following
    return (*graphs, model_class([last], [entry], LAST_CONVOLUTION))


def requantise(ops: Any, pooled: Node, entry: Node) -> Node:
    """Quantise an entry as the graph quantises what it pools: values that were quantised so before do not change."""
    source = pooled.get_node().input(0).get_source_output().get_node()
    if source.get_type_name() != "FakeQuantize":
        return entry
    bounds = [constant_value(source.input(i)) for i in range(1, 5)]
    return ops.fake_quantize(entry, *bounds, source.get_attributes()["levels"])


@dataclass(frozen=True)
class GruWeights:
    """Weights of a bidirectional GRU; D = 2 directions, gates in OpenVINO's order: update, reset, new.

    of_input: (D, 3 * width, n). of_state: (D, 3 * width, width). bias: (D, 4 * width); its last part is added to the
    state's product for the gate `new`, before the reset.
    """

    of_input: Array
    of_state: Array
    bias: Array

    @property
    def width(self) -> int:
        """Width of the hidden state, in one direction."""
        return int(self.of_state.shape[-1])


def read_gru(node: Node) -> GruWeights:
    """Read the weights of a `GRUSequence`."""
    return GruWeights(*(constant_value(node.input(i)) for i in (3, 4, 5)))


def constant_value(port: Any) -> Array:
    """Return the value of a port that is computed from constants only, such as weights in half precision."""
    source = port.get_source_output()
    if source.get_node().get_type_name() == "Constant":
        return np.asarray(source.get_node().get_data(), np.float32)
    openvino = import_openvino()
    found = openvino.Core().compile_model(openvino.Model([source], [], "constant"), "CPU")({})
    return np.array(found[0], np.float32)


def build_projection(node: Node) -> ov.Model:
    """Build the graph of a GRU's products of its input, for both directions."""
    ops, weights = import_ops(), read_gru(node)
    x = ops.parameter([-1, -1, weights.of_input.shape[-1]], np.float32)
    return make_model([project(ops, weights, x)], [x], ("features", "products"), "projection")


def build_recurrence(nodes: dict[str, Node], result: Node) -> ov.Model:
    """Build the graph from the first GRU's products and the lips to logits."""
    ops = import_ops()
    first, second, of_lips = (read_gru(nodes[name]) for name in (FIRST_GRU, "gru2", "coord_gru"))
    products = ops.parameter([-1, -1, N_DIRECTIONS * 3 * first.width], np.float32)
    lips = ops.parameter([-1, -1, N_LIP_POINTS, 2], np.float32)
    x = add_loop(ops, first, products)
    x = add_loop(ops, second, project(ops, second, x))
    both = ops.concat([x, add_loop(ops, of_lips, project(ops, of_lips, flatten(ops, lips)))], 2)
    add_bias = result.input(0).get_source_output().get_node()
    last_layer = add_bias.input(0).get_source_output().get_node()
    scores = ops.matmul(both, constant_value(last_layer.input(1)), transpose_a=False, transpose_b=True)
    logits = ops.add(scores, constant_value(add_bias.input(1)))
    return make_model([logits], [products, lips], ("products", "lips", "logits"), "recurrence")


def project(ops: Any, weights: GruWeights, x: Node) -> Node:
    """Add a GRU's products of its input: (B, T, n) -> (B, T, 2 * 3 * width)."""
    of_input = weights.of_input.reshape(-1, weights.of_input.shape[-1])
    bias = weights.bias[:, : 3 * weights.width].reshape(-1)
    return ops.add(ops.matmul(x, of_input, transpose_a=False, transpose_b=True), bias)


def add_loop(ops: Any, weights: GruWeights, products: Node) -> Node:
    """Add a GRU's loop over frames, forwards and backwards at once: (B, T, 2 * 3 * width) -> (B, T, 2 * width)."""
    width = weights.width
    forward, backward = ops.split(products, 2, N_DIRECTIONS).outputs()
    n_clips = ops.gather(ops.shape_of(products), np.array([0]), np.array(0))
    start = ops.broadcast(np.float32(0), ops.concat([np.array([N_DIRECTIONS]), n_clips, np.array([width])], 0))
    inputs, results, body = build_step(ops, weights)
    loop = ops.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(inputs[0], forward, 0, 1, 1, -1, 1)
    loop.set_sliced_input(inputs[1], backward, -1, -1, 1, 0, 1)
    loop.set_merged_input(inputs[2], start.output(0), results[2].output(0))
    return ops.concat(
        [
            loop.get_concatenated_slices(results[0].output(0), 0, 1, 1, -1, 1),
            loop.get_concatenated_slices(results[1].output(0), -1, -1, 1, 0, 1),
        ],
        2,
    )


def build_step(ops: Any, weights: GruWeights) -> tuple[list[Node], list[Node], ov.Model]:
    """Build one step of a GRU in both directions.

    Its inputs: the products of a frame for each direction, (B, 1, 3 * width), and the states (2, B, width); its
    results: the state of each direction, (B, 1, width), and both.
    """
    width = weights.width
    forward, backward = (ops.parameter([-1, 1, 3 * width], np.float32) for _ in range(N_DIRECTIONS))
    state = ops.parameter([N_DIRECTIONS, -1, width], np.float32)
    swap = np.array([1, 0, 2])
    frame = ops.concat([ops.transpose(forward, swap), ops.transpose(backward, swap)], 0)
    of_state = ops.matmul(state, np.ascontiguousarray(weights.of_state.transpose(0, 2, 1)), False, False)
    gates, new = ops.variadic_split(frame, 2, np.array([2 * width, width])).outputs()
    state_gates, state_new = ops.variadic_split(of_state, 2, np.array([2 * width, width])).outputs()
    update, reset = ops.split(ops.sigmoid(ops.add(gates, state_gates)), 2, 2).outputs()
    state_new = ops.add(state_new, weights.bias[:, None, 3 * width :])
    candidate = ops.tanh(ops.add(new, ops.multiply(reset, state_new)))
    following = ops.add(candidate, ops.multiply(update, ops.subtract(state, candidate)))
    directions = ops.split(following, 0, N_DIRECTIONS).outputs()
    results = [ops.result(node) for node in (*(ops.transpose(one, swap) for one in directions), following)]
    inputs = [forward, backward, state]
    return inputs, results, import_openvino().Model(results, inputs, "step")
