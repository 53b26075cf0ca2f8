"""The avatar's two networks as graphs, put together layer by layer, each batch norm folded into its convolution.

One description serves OpenVINO, which runs it, and ONNX, which is written for others to run. OpenVINO can trace a torch
module, too, but that takes seconds of every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from inference.models import AudioVisualEncoder, AvatarPainter, AvatarUNet
from inference.models.avatar_unet import FACE_CHANNELS, FACE_SIDE, InvertedResidual
from inference.models.wav2lip import MEL_COLUMNS, MEL_ROWS, Conv2d

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
Node = Any  # openvino.Node, or the name of a node of ONNX
LEVELS = 255


@dataclass(frozen=True)
class Folded:
    """A convolution with what follows it in its numbers.

    name, norm: its prefix in the state dict, and its batch norm's; None where none follows.
    """

    name: str
    norm: str | None
    has_bias: bool  # of its own
    weight: Array  # (out, in / groups, h, w)
    bias: Array  # (out,)
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int


class GraphOps(Protocol):
    """What the networks are made of."""

    def conv(self, x: Node, layer: Folded) -> Node: ...

    def relu(self, x: Node) -> Node: ...

    def add(self, x: Node, y: Node) -> Node: ...

    def concat(self, x: Node, y: Node) -> Node:
        """Channels behind channels."""

    def double(self, x: Node) -> Node:
        """Twice the side, bilinear, corners on corners."""

    def sigmoid(self, x: Node) -> Node: ...


def add_unet(ops: GraphOps, unet: AvatarUNet, face: Node, audio: Node) -> Node:
    """As `AvatarUNet.forward`."""
    maps = [add_inverted(ops, unet, "inc.inconv.0", face)]
    for i in range(1, 6):
        maps.append(add_double(ops, unet, f"down{i}.maxpool_conv.0", maps[-1]))
    x = ops.concat(maps.pop(), add_audio(ops, unet, audio))
    for i in range(2):
        x = add_double(ops, unet, f"fuse_conv.{i}", x)
    for i in range(1, 6):
        x = ops.concat(ops.double(x), maps.pop())
        x = add_double(ops, unet, f"up{i}.conv", x)
    return ops.sigmoid(ops.conv(x, fold(unet, "outc.conv", None)))


def add_audio(ops: GraphOps, unet: AvatarUNet, x: Node) -> Node:
    """As `AudioBranch.forward`."""
    branch = unet.audio_model
    for i in range(1, 8):
        if isinstance(branch.get_submodule(f"conv{i}"), nn.Conv2d):
            x = ops.relu(ops.conv(x, fold(unet, f"audio_model.conv{i}", f"audio_model.bn{i}")))
        else:
            x = add_inverted(ops, unet, f"audio_model.conv{i}", x)
    return x


def add_double(ops: GraphOps, unet: AvatarUNet, name: str, x: Node) -> Node:
    for i in range(2):
        x = add_inverted(ops, unet, f"{name}.double_conv.{i}", x)
    return x


def add_inverted(ops: GraphOps, unet: AvatarUNet, name: str, x: Node) -> Node:
    layer = unet.get_submodule(name)
    assert isinstance(layer, InvertedResidual)
    y = x
    for i in (0, 3, 6):
        y = ops.conv(y, fold(unet, f"{name}.conv.{i}", f"{name}.conv.{i + 1}"))
        y = y if i == 6 else ops.relu(y)
    return ops.add(x, y) if layer.residual else y


def add_encoder(ops: GraphOps, encoder: AudioVisualEncoder, mel: Node) -> Node:
    """As `AudioVisualEncoder.forward`, with a height and a width of 1 left behind the features."""
    x = mel
    for i, layer in enumerate(encoder.audio_encoder):
        assert isinstance(layer, Conv2d)
        name = f"audio_encoder.{i}.conv_block"
        y = ops.conv(x, fold(encoder, f"{name}.0", f"{name}.1"))
        x = ops.relu(ops.add(x, y) if layer.residual else y)
    return x


def fold(module: nn.Module, name: str, norm_name: str | None) -> Folded:
    """A convolution and the batch norm behind it as one convolution."""
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    weight, bias = numbers(conv.weight), numbers(conv.bias) if conv.bias is not None else np.zeros(1, np.float32)
    if norm_name is not None:
        norm = module.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = numbers(norm.weight) / np.sqrt(numbers(norm.running_var) + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - numbers(norm.running_mean)) * scale + numbers(norm.bias)
    stride, padding = (conv.stride[0], conv.stride[1]), (int(conv.padding[0]), int(conv.padding[1]))
    bias = np.broadcast_to(bias, (len(weight),)).astype(np.float32)
    has_bias = conv.bias is not None
    return Folded(name, norm_name, has_bias, weight.astype(np.float32), bias, stride, padding, conv.groups)


def numbers(tensor: Tensor) -> Array:
    found: Array = tensor.detach().float().numpy()
    return found


class OpenVinoOps:
    """Nodes of OpenVINO."""

    def __init__(self) -> None:
        from openvino import opset13

        self.ops: Any = opset13

    def conv(self, x: Node, layer: Folded) -> Node:
        weight, pads = layer.weight, layer.padding
        if layer.groups > 1:
            weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
            x = self.ops.group_convolution(x, weight, layer.stride, pads, pads, (1, 1), name=layer.name)
        else:
            x = self.ops.convolution(x, weight, layer.stride, pads, pads, (1, 1), name=layer.name)
        return self.ops.add(x, layer.bias.reshape(1, -1, 1, 1))

    def relu(self, x: Node) -> Node:
        return self.ops.relu(x)

    def add(self, x: Node, y: Node) -> Node:
        return self.ops.add(x, y)

    def concat(self, x: Node, y: Node) -> Node:
        return self.ops.concat([x, y], 1)

    def double(self, x: Node) -> Node:
        return self.ops.interpolate(
            x,
            np.array([2, 2], np.float32),
            "linear_onnx",
            "scales",
            coordinate_transformation_mode="align_corners",
            axes=np.array([2, 3]),
        )

    def sigmoid(self, x: Node) -> Node:
        return self.ops.sigmoid(x)


def build_unet(unet: AvatarUNet) -> ov.Model:
    """Inputs: input (B, 6, 320, 320), audio (B, *audio_shape); output: output (B, 3, 320, 320); all float32."""
    graph = OpenVinoOps()
    face = graph.ops.parameter([-1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE], np.float32)
    audio = graph.ops.parameter([-1, *unet.audio_shape], np.float32)
    return as_model(add_unet(graph, unet, face, audio), [face, audio], ("input", "audio", "output"), "AvatarUNet")


def build_painter(painter: AvatarPainter, n: int = 1) -> ov.Model:
    """As `AvatarPainter.forward`: levels of pictures, (n, 320, 320, 3) uint8, go in and come out.

    n: fixed, so that OpenVINO lays out its memory beforehand: half of what any number would take.
    """
    graph = OpenVinoOps()
    ops = graph.ops
    face = ops.parameter([n, FACE_SIDE, FACE_SIDE, 3], np.uint8)
    audio = ops.parameter([n, *painter.unet.audio_shape], np.float32)
    levels = ops.convert(ops.transpose(face, np.array([0, 3, 1, 2])), "f32")
    whole = ops.divide(levels, np.float32(LEVELS))
    both = ops.concat([whole, ops.multiply(whole, numbers(painter.mask))], 1)
    said = add_unet(graph, painter.unet, both, audio)
    levels = ops.convert(ops.floor(ops.multiply(said, np.float32(LEVELS))), "u8")
    out = ops.transpose(levels, np.array([0, 2, 3, 1]))
    return as_model(out, [face, audio], ("face", "audio", "said"), "AvatarPainter")


def build_encoder(encoder: AudioVisualEncoder, n: int = -1) -> ov.Model:
    """Input: mel (B, 1, 80, 16); output: features (B, F); all float32. n: a fixed B."""
    graph = OpenVinoOps()
    mel = graph.ops.parameter([n, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    features = graph.ops.squeeze(add_encoder(graph, encoder, mel), np.array([2, 3]))
    return as_model(features, [mel], ("mel", "features"), "AudioVisualEncoder")


def as_model(output: Node, inputs: Sequence[Node], names: tuple[str, ...], title: str) -> ov.Model:
    """names: of the inputs, then of the output."""
    import openvino as ov

    model = ov.Model([output], list(inputs), title)
    for port, name in zip((*model.inputs, *model.outputs), names, strict=True):
        port.get_tensor().set_names({name})
    return model
