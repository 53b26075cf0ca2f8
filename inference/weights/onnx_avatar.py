"""Reads the weights of an avatar's networks out of ONNX files that other tools exported.

An exporter folds batch norms into convolutions and renames the tensors. So each tensor is found by its position: the
file's graph is walked in parallel with ours, and accepted only if both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.backends.graphs.avatar import GraphWeights, add_encoder, add_unet
from inference.backends.graphs.folded_conv import EPSILON, FoldedConv
from inference.dimensions.avatar import MODES, UNetDimensions, unet_layers
from inference.dimensions.layers import BATCH_COUNTER, ConvLayer, shapes_of
from inference.dimensions.wav2lip import AUDIO_WIDTHS, audio_encoder_layers, audio_widths_of
from inference.errors import WrongWeights
from inference.weights.checkpoint import Arrays
from inference.weights.onnx_reader import OnnxGraph, OnnxNode, read_onnx

Array = npt.NDArray[Any]
# ONNX operations by our names for them.
OPS = {
    "Relu": "relu",
    "Add": "add",
    "Concat": "concat",
    "Resize": "upsample",
    "Upsample": "upsample",
    "Sigmoid": "sigmoid",
}
# Skipped: in networks of this shape they leave the values unchanged.
PASSTHROUGH_OPS = ("Identity", "Cast", "Pad", "Dropout", "Flatten", "Squeeze", "Reshape", "Gather")
MAX_BRANCH_NODES = 5  # of a residual branch: three convolutions, two ReLUs
MAX_CAST_DEPTH = 4  # nodes between a stored constant and its use


@dataclass(frozen=True)
class GraphStep:
    """A node of our own graph, with the nodes that it takes values from."""

    op: str
    inputs: tuple[GraphStep, ...]
    layer: ConvLayer | None = None


INPUT = GraphStep("input", ())


class GraphRecorder:
    """Records a network's graph instead of building it for a runtime; see `GraphOps`."""

    def conv(self, x: GraphStep, conv: FoldedConv) -> GraphStep:
        return GraphStep("conv", (x,), conv.layer)

    def relu(self, x: GraphStep) -> GraphStep:
        return GraphStep("relu", (x,))

    def add(self, x: GraphStep, y: GraphStep) -> GraphStep:
        return GraphStep("add", (x, y))

    def concat(self, x: GraphStep, y: GraphStep) -> GraphStep:
        return GraphStep("concat", (x, y))

    def upsample(self, x: GraphStep) -> GraphStep:
        return GraphStep("upsample", (x,))

    def sigmoid(self, x: GraphStep) -> GraphStep:
        return GraphStep("sigmoid", (x,))


@dataclass(frozen=True)
class OnnxConv:
    """A convolution of a file. bias: None if it has none. norm: gamma, beta, mean, variance and epsilon, or None."""

    weight: Array
    bias: Array | None
    norm: tuple[Array, Array, Array, Array, float] | None
    stride: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int


def unet_from_onnx(path: Path) -> tuple[Arrays, str]:
    """Return the state dict of an exported U-Net, and its mode, which follows from its strides.

    Raises: WeightsNotFound, WrongWeights naming the first node that differs from the U-Net's.
    """
    graph = read_onnx(path)
    problem: WrongWeights | None = None
    for mode in MODES:
        try:
            found = match_convolutions(graph, record_unet(UNetDimensions.published(mode)), path)
            tensors = to_state_dict(found)
            expected = record_unet(UNetDimensions.of(tensors, mode))
            check_layers(found, layers_of(expected), path)
        except WrongWeights as err:
            problem = problem or err
            continue
        return tensors, mode
    assert problem is not None
    raise problem


def record_unet(sizes: UNetDimensions) -> GraphStep:
    """Record the graph of a U-Net and return its last step."""
    end: GraphStep = add_unet(GraphRecorder(), untrained(unet_layers(sizes).values()), INPUT, INPUT)
    return end


def record_encoder(widths: Sequence[int]) -> GraphStep:
    """Record the graph of an audio encoder and return its last step."""
    end: GraphStep = add_encoder(GraphRecorder(), untrained(audio_encoder_layers(widths)), INPUT)
    return end


def untrained(layers: Iterable[ConvLayer]) -> GraphWeights:
    """Return layers with zeros as weights, which recorded graphs don't use."""
    named = {layer.name: layer for layer in layers}
    zero = np.zeros((), np.float32)
    return GraphWeights(named, {key: np.broadcast_to(zero, shape) for key, shape in shapes_of(named.values()).items()})


def encoder_from_onnx(path: Path) -> Arrays:
    """Return the state dict of an exported audio encoder. Raises: as `unet_from_onnx`."""
    graph = read_onnx(path)
    found = match_convolutions(graph, record_encoder(AUDIO_WIDTHS), path)
    tensors = to_state_dict(found)
    check_layers(found, layers_of(record_encoder(audio_widths_of(tensors))), path)
    return tensors


def match_convolutions(graph: OnnxGraph, end: GraphStep, path: Path) -> list[tuple[ConvLayer, OnnxConv]]:
    """Walk both graphs from their outputs and pair our convolutions with the file's.

    end: the last step of our graph.
    """
    if len(graph.outputs) != 1:
        raise WrongWeights(f"{path}: {len(graph.outputs)} outputs; expected one")
    pairs: dict[str, tuple[ConvLayer, OnnxConv]] = {}
    waiting, seen = [(end, graph.outputs[0])], set()
    while waiting:
        step, name = waiting.pop()
        if (id(step), name) in seen:
            continue
        seen.add((id(step), name))
        op, operands, conv = resolve_value(graph, name)
        if op != step.op or len(operands) != len(step.inputs):
            raise WrongWeights(f"{path}: another network: found {op} at {name!r}; expected {step.op} there")
        if step.layer is not None and conv is not None:
            pairs[step.layer.name] = step.layer, conv
        waiting += zip(step.inputs, operands, strict=True)
    return list(pairs.values())


def resolve_value(graph: OnnxGraph, name: str) -> tuple[str, tuple[str, ...], OnnxConv | None]:
    """Return the operation that computes this value, the values it takes, and its weights if it is a convolution.

    A batch norm counts as part of its convolution.
    """
    node = graph.nodes.get(skip_passthrough(graph, name))
    if node is None:
        return "input", (), None
    if node.op == "BatchNormalization":
        before = graph.nodes.get(node.inputs[0])
        if before is not None and before.op == "Conv":
            return "conv", before.inputs[:1], read_conv(graph, before, node)
    if node.op == "Conv":
        return "conv", node.inputs[:1], read_conv(graph, node, None)
    if node.op == "Add":
        return "add", canonical_operands(graph, *node.inputs[:2]), None
    return OPS.get(node.op, node.op), node.inputs[: 2 if node.op == "Concat" else 1], None


def skip_passthrough(graph: OnnxGraph, name: str) -> str:
    """Return the name of the same value before nodes that leave it unchanged."""
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(name)
        if node is None or node.op not in PASSTHROUGH_OPS or not node.inputs:
            break
        name = node.inputs[0]
    return name


def canonical_operands(graph: OnnxGraph, x: str, y: str) -> tuple[str, str]:
    """Return the operands of a residual sum in our order: the input, then the branch computed from it."""
    name = x
    for _ in range(MAX_BRANCH_NODES):
        _, operands, _ = resolve_value(graph, name)
        if len(operands) != 1:
            break
        name = operands[0]
        if skip_passthrough(graph, name) == skip_passthrough(graph, y):
            return y, x
    return x, y


def read_conv(graph: OnnxGraph, conv: OnnxNode, norm: OnnxNode | None) -> OnnxConv:
    weight = constant_of(graph, conv.inputs[1])
    bias = constant_of(graph, conv.inputs[2]) if len(conv.inputs) > 2 else None
    normed = None
    if norm is not None:
        gamma, beta, mean, variance = (constant_of(graph, name) for name in norm.inputs[1:5])
        normed = gamma, beta, mean, variance, EPSILON
    attributes = conv.attributes
    return OnnxConv(
        weight,
        bias,
        normed,
        tuple(attributes.get("strides", (1, 1))),
        tuple(attributes.get("pads", (0, 0, 0, 0))),
        int(attributes.get("group", 1)),
    )


def constant_of(graph: OnnxGraph, name: str) -> Array:
    """Return a constant as float32, looking through casts. Raises: WrongWeights if it is not stored in the file."""
    for _ in range(MAX_CAST_DEPTH):
        if name in graph.constants:
            return graph.constants[name].astype(np.float32)
        node = graph.nodes.get(name)
        if node is None or node.op not in ("Cast", "Identity"):
            break
        name = node.inputs[0]
    raise WrongWeights(f"the tensor {name!r} is computed, or not in the file; expected stored values")


def to_state_dict(found: list[tuple[ConvLayer, OnnxConv]]) -> Arrays:
    """Return an equivalent state dict of our module.

    Folded batch norms stay folded: those of the state dict then only add a bias.
    """
    state: dict[str, Array] = {}
    for layer, conv in found:
        state[f"{layer.name}.weight"] = conv.weight
        n_out = len(conv.weight)
        bias = np.zeros(n_out, np.float32) if conv.bias is None else conv.bias
        if layer.has_bias:
            state[f"{layer.name}.bias"] = bias
            bias = np.zeros(n_out, np.float32)
        if layer.norm is None:
            continue
        one = np.ones(n_out, np.float32)
        # With this variance 1 / sqrt(variance + epsilon) is 1. If our convolution has no bias, the norm adds it.
        gamma, beta, mean, variance, _ = conv.norm or (one, bias, 0 * one, one - np.float32(EPSILON), EPSILON)
        if conv.norm is not None:
            mean = mean - bias  # the file's convolution has a bias that ours lacks
        state |= {
            f"{layer.norm}.weight": gamma,
            f"{layer.norm}.bias": beta,
            f"{layer.norm}.running_mean": mean,
            f"{layer.norm}.running_var": variance,
        }
    norms = [layer.norm for layer, _ in found if layer.norm is not None]
    return state | {f"{norm}.{BATCH_COUNTER}": np.zeros((), np.int64) for norm in norms}


def layers_of(end: GraphStep) -> dict[str, ConvLayer]:
    """Return the convolutions of a recorded graph, by name."""
    layers: dict[str, ConvLayer] = {}
    waiting, seen = [end], set()
    while waiting:
        step = waiting.pop()
        if id(step) not in seen:
            seen.add(id(step))
            waiting += step.inputs
            if step.layer is not None:
                layers[step.layer.name] = step.layer
    return layers


def check_layers(found: list[tuple[ConvLayer, OnnxConv]], expected: dict[str, ConvLayer], path: Path) -> None:
    """Raise WrongWeights if a convolution of the file has another shape, stride, padding or grouping than ours."""
    for layer, conv in found:
        ours = expected[layer.name]
        actual = (conv.weight.shape, conv.stride, conv.pads, conv.groups)
        wanted = (ours.shapes[f"{ours.name}.weight"], ours.stride, (*ours.padding, *ours.padding), ours.groups)
        if actual != wanted:
            raise WrongWeights(
                f"{path}: {layer.name} has shape, strides, pads, groups {actual}; expected {wanted} of its network"
            )
