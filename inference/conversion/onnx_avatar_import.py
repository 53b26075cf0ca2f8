"""The avatar's networks out of ONNX files, as other tools export them, and into such files.

An exporter folds batch norms into convolutions and gives the numbers names of its own. So they are found by where they
stand: a file's graph is walked beside ours, and taken only where it is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inference.backends.graphs.avatar import Folded, add_encoder, add_unet
from inference.conversion.onnx_reader import OnnxGraph, OnnxNode, read_onnx
from inference.errors import WrongWeights
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.models.avatar_unet import MODES
from inference.weights.checkpoint import Tensors

Array = npt.NDArray[Any]
# What other nodes are called here. What does nothing to the numbers of a network of this shape is passed over.
OPS = {"Relu": "relu", "Add": "add", "Concat": "concat", "Resize": "double", "Upsample": "double", "Sigmoid": "sigmoid"}
PASSED_OVER = ("Identity", "Cast", "Pad", "Dropout", "Flatten", "Squeeze", "Reshape", "Gather")
LONGEST_BRANCH = 5  # nodes beside a sum: three convolutions, two ReLUs
EPSILON = 1e-5  # of torch's batch norms


@dataclass(frozen=True)
class Step:
    """A node of our own graph, with what it takes."""

    op: str
    inputs: tuple[Step, ...]
    layer: Folded | None = None


INPUT = Step("input", ())


class GraphRecorder:
    """Draws a network's graph instead of running it."""

    def conv(self, x: Step, layer: Folded) -> Step:
        return Step("conv", (x,), layer)

    def relu(self, x: Step) -> Step:
        return Step("relu", (x,))

    def add(self, x: Step, y: Step) -> Step:
        return Step("add", (x, y))

    def concat(self, x: Step, y: Step) -> Step:
        return Step("concat", (x, y))

    def double(self, x: Step) -> Step:
        return Step("double", (x,))

    def sigmoid(self, x: Step) -> Step:
        return Step("sigmoid", (x,))


@dataclass(frozen=True)
class OnnxConv:
    """A convolution of a file. bias: None where it has none. norm: gamma, beta, mean, variance and epsilon."""

    weight: Array
    bias: Array | None
    norm: tuple[Array, Array, Array, Array, float] | None
    stride: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int


def unet_from_onnx(path: Path) -> tuple[Tensors, str]:
    """The state dict of an exported U-Net, and its mode, which its strides tell.

    Raises: WeightsNotFound, WrongWeights naming the first node that differs from the U-Net's.
    """
    graph = read_onnx(path)
    problem: WrongWeights | None = None
    for mode in MODES:
        try:
            found = match(graph, add_unet(GraphRecorder(), AvatarUNet(mode), INPUT, INPUT), path)
            tensors = as_state(found)
            check_layers(
                found, layers_of(add_unet(GraphRecorder(), AvatarUNet.like(tensors, mode), INPUT, INPUT)), path
            )
        except WrongWeights as err:
            problem = problem or err
            continue
        return tensors, mode
    assert problem is not None
    raise problem


def encoder_from_onnx(path: Path) -> Tensors:
    """The state dict of an exported encoder. Raises: as `unet_from_onnx`."""
    graph = read_onnx(path)
    found = match(graph, add_encoder(GraphRecorder(), AudioVisualEncoder(), INPUT), path)
    tensors = as_state(found)
    check_layers(found, layers_of(add_encoder(GraphRecorder(), AudioVisualEncoder.like(tensors), INPUT)), path)
    return tensors


def match(graph: OnnxGraph, ours: Step, path: Path) -> list[tuple[Folded, OnnxConv]]:
    """Walk both graphs from their ends, side by side: which of the file's convolutions is which of ours."""
    if len(graph.outputs) != 1:
        raise WrongWeights(f"{path}: {len(graph.outputs)} outputs; expected one")
    pairs: dict[str, tuple[Folded, OnnxConv]] = {}
    waiting, seen = [(ours, graph.outputs[0])], set()
    while waiting:
        step, name = waiting.pop()
        if (id(step), name) in seen:
            continue
        seen.add((id(step), name))
        op, sources, conv = look(graph, name)
        if op != step.op or len(sources) != len(step.inputs):
            raise WrongWeights(f"{path}: another network: found {op} at {name!r}; expected {step.op} there")
        if step.layer is not None and conv is not None:
            pairs[step.layer.name] = step.layer, conv
        waiting += zip(step.inputs, sources, strict=True)
    return list(pairs.values())


def look(graph: OnnxGraph, name: str) -> tuple[str, tuple[str, ...], OnnxConv | None]:
    """What makes the value of that name, and out of which values; a batch norm belongs to its convolution."""
    node = graph.nodes.get(pass_over(graph, name))
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


def pass_over(graph: OnnxGraph, name: str) -> str:
    """The value that this one is, under another name."""
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(name)
        if node is None or node.op not in PASSED_OVER or not node.inputs:
            break
        name = node.inputs[0]
    return name


def canonical_operands(graph: OnnxGraph, x: str, y: str) -> tuple[str, str]:
    """The two sides of a sum in the order that ours has: a value, then what convolutions made of it."""
    name = x
    for _ in range(LONGEST_BRANCH):
        _, sources, _ = look(graph, name)
        if len(sources) != 1:
            break
        name = sources[0]
        if pass_over(graph, name) == pass_over(graph, y):
            return y, x
    return x, y


def read_conv(graph: OnnxGraph, conv: OnnxNode, norm: OnnxNode | None) -> OnnxConv:
    weight = numbers_of(graph, conv.inputs[1])
    bias = numbers_of(graph, conv.inputs[2]) if len(conv.inputs) > 2 else None
    normed = None
    if norm is not None:
        gamma, beta, mean, variance = (numbers_of(graph, name) for name in norm.inputs[1:5])
        normed = gamma, beta, mean, variance, EPSILON
    about = conv.attributes
    return OnnxConv(
        weight,
        bias,
        normed,
        tuple(about.get("strides", (1, 1))),
        tuple(about.get("pads", (0, 0, 0, 0))),
        int(about.get("group", 1)),
    )


def numbers_of(graph: OnnxGraph, name: str) -> Array:
    """The numbers of that name, through what only changes their type. Raises: WrongWeights."""
    for _ in range(4):
        if name in graph.numbers:
            return graph.numbers[name].astype(np.float32)
        node = graph.nodes.get(name)
        if node is None or node.op not in ("Cast", "Identity"):
            break
        name = node.inputs[0]
    raise WrongWeights(f"the numbers {name!r} are computed, or not in the file; expected them stored")


def as_state(found: list[tuple[Folded, OnnxConv]]) -> Tensors:
    """The state dict that says the same. What was folded stays folded: the norms then do nothing but add."""
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
        # 1 / sqrt(variance + epsilon) is 1; a bias that the convolution cannot hold goes where the norm adds.
        gamma, beta, mean, variance, _ = conv.norm or (one, bias, 0 * one, one - np.float32(EPSILON), EPSILON)
        if conv.norm is not None:
            mean = mean - bias  # of a convolution that upstream has without one
        state |= {
            f"{layer.norm}.weight": gamma,
            f"{layer.norm}.bias": beta,
            f"{layer.norm}.running_mean": mean,
            f"{layer.norm}.running_var": variance,
        }
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in state.items()}
    norms = [layer.norm for layer, _ in found if layer.norm is not None]
    return tensors | {f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms}


def layers_of(end: Step) -> dict[str, Folded]:
    layers: dict[str, Folded] = {}
    waiting, seen = [end], set()
    while waiting:
        step = waiting.pop()
        if id(step) not in seen:
            seen.add(id(step))
            waiting += step.inputs
            if step.layer is not None:
                layers[step.layer.name] = step.layer
    return layers


def check_layers(found: list[tuple[Folded, OnnxConv]], expected: dict[str, Folded], path: Path) -> None:
    """Raises: WrongWeights where a convolution of the file works in another way than ours."""
    for layer, conv in found:
        ours = expected[layer.name]
        theirs = (conv.weight.shape, conv.stride, conv.pads, conv.groups)
        wanted = (ours.weight.shape, ours.stride, (*ours.padding, *ours.padding), ours.groups)
        if theirs != wanted:
            raise WrongWeights(
                f"{path}: {layer.name} has shape, strides, pads, groups {theirs}; expected {wanted} of its network"
            )
