"""The avatar's two networks as graphs, built layer by layer, each batch norm folded into its convolution.

One description serves OpenVINO, which runs it, and the import of ONNX files, which compares them with it. OpenVINO's
conversion of the torch U-Net takes 11 s and 690 MB at each start; this takes half a second and 60 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from inference.backends.graphs.model import Array, import_ops, make_model, to_numpy
from inference.models import AudioVisualEncoder, AvatarGenerator, AvatarUNet
from inference.models.avatar_unet import FACE_CHANNELS, FACE_SIDE, InvertedResidual
from inference.models.wav2lip import MEL_COLUMNS, MEL_ROWS, Conv2d

if TYPE_CHECKING:
    import openvino as ov

Node = Any  # openvino.Node, or a step of a recorded graph
MAX_LEVEL = 255


@dataclass(frozen=True)
class FoldedConv:
    """A convolution with its batch norm folded in.

    name: its prefix in the state dict. norm: the batch norm's prefix; None if it has none.
    has_bias: whether the module's convolution has a bias.
    """

    name: str
    norm: str | None
    has_bias: bool
    weight: Array  # (out, in / groups, h, w)
    bias: Array  # (out,)
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int


class GraphOps(Protocol):
    """The operations that the networks consist of."""

    def conv(self, x: Node, layer: FoldedConv) -> Node: ...

    def relu(self, x: Node) -> Node: ...

    def add(self, x: Node, y: Node) -> Node: ...

    def concat(self, x: Node, y: Node) -> Node:
        """Join along the channels."""

    def upsample(self, x: Node) -> Node:
        """Double height and width: bilinear, with aligned corners."""

    def sigmoid(self, x: Node) -> Node: ...


def add_unet(ops: GraphOps, unet: AvatarUNet, face: Node, audio: Node) -> Node:
    """Add the layers of `AvatarUNet.forward`."""
    maps = [add_inverted(ops, unet, "inc.inconv.0", face)]
    for i in range(1, 6):
        maps.append(add_double_conv(ops, unet, f"down{i}.maxpool_conv.0", maps[-1]))
    x = ops.concat(maps.pop(), add_audio(ops, unet, audio))
    for i in range(2):
        x = add_double_conv(ops, unet, f"fuse_conv.{i}", x)
    for i in range(1, 6):
        x = ops.concat(ops.upsample(x), maps.pop())
        x = add_double_conv(ops, unet, f"up{i}.conv", x)
    return ops.sigmoid(ops.conv(x, fold(unet, "outc.conv", None)))


def add_audio(ops: GraphOps, unet: AvatarUNet, x: Node) -> Node:
    """Add the layers of `AudioBranch.forward`."""
    branch = unet.audio_model
    for i in range(1, 8):
        if isinstance(branch.get_submodule(f"conv{i}"), nn.Conv2d):
            x = ops.relu(ops.conv(x, fold(unet, f"audio_model.conv{i}", f"audio_model.bn{i}")))
        else:
            x = add_inverted(ops, unet, f"audio_model.conv{i}", x)
    return x


def add_double_conv(ops: GraphOps, unet: AvatarUNet, name: str, x: Node) -> Node:
    for i in range(2):
        x = add_inverted(ops, unet, f"{name}.double_conv.{i}", x)
    return x


def add_inverted(ops: GraphOps, unet: AvatarUNet, name: str, x: Node) -> Node:
    """Add an inverted residual block."""
    layer = unet.get_submodule(name)
    assert isinstance(layer, InvertedResidual)
    y = x
    for i in (0, 3, 6):
        y = ops.conv(y, fold(unet, f"{name}.conv.{i}", f"{name}.conv.{i + 1}"))
        y = y if i == 6 else ops.relu(y)
    return ops.add(x, y) if layer.residual else y


def add_encoder(ops: GraphOps, encoder: AudioVisualEncoder, mel: Node) -> Node:
    """Add the layers of `AudioVisualEncoder.forward`: (B, 1, 80, 16) -> features (B, F, 1, 1)."""
    x = mel
    for i, layer in enumerate(encoder.audio_encoder):
        assert isinstance(layer, Conv2d)
        name = f"audio_encoder.{i}.conv_block"
        y = ops.conv(x, fold(encoder, f"{name}.0", f"{name}.1"))
        x = ops.relu(ops.add(x, y) if layer.residual else y)
    return x


def fold(module: nn.Module, name: str, norm_name: str | None) -> FoldedConv:
    """Fold a convolution and its batch norm, if it has one, into one convolution."""
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    weight, bias = to_numpy(conv.weight), to_numpy(conv.bias) if conv.bias is not None else np.zeros(1, np.float32)
    if norm_name is not None:
        norm = module.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        scale = to_numpy(norm.weight) / np.sqrt(to_numpy(norm.running_var) + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - to_numpy(norm.running_mean)) * scale + to_numpy(norm.bias)
    stride, padding = (conv.stride[0], conv.stride[1]), (int(conv.padding[0]), int(conv.padding[1]))
    bias = np.broadcast_to(bias, (len(weight),)).astype(np.float32)
    has_bias = conv.bias is not None
    return FoldedConv(name, norm_name, has_bias, weight.astype(np.float32), bias, stride, padding, conv.groups)


class OpenVinoOps:
    """Builds nodes of OpenVINO; see `GraphOps`."""

    def __init__(self) -> None:
        self.ops: Any = import_ops()

    def conv(self, x: Node, layer: FoldedConv) -> Node:
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

    def upsample(self, x: Node) -> Node:
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
    """Build the U-Net.

    Inputs: input (B, 6, 320, 320), audio (B, *audio_shape); output: output (B, 3, 320, 320); all float32.
    """
    graph = OpenVinoOps()
    face = graph.ops.parameter([-1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE], np.float32)
    audio = graph.ops.parameter([-1, *unet.audio_shape], np.float32)
    output = add_unet(graph, unet, face, audio)
    return make_model([output], [face, audio], ("input", "audio", "output"), "AvatarUNet")


def build_generator(generator: AvatarGenerator, n: int = 1) -> ov.Model:
    """Build the network that takes and returns images: see `AvatarGenerator.forward`.

    Inputs: face (n, 320, 320, 3) uint8 BGR, audio (n, *audio_shape) float32; output: image, like face.
    n: a fixed batch, so that OpenVINO plans its memory in advance: half of what a dynamic batch takes.
    """
    graph = OpenVinoOps()
    ops = graph.ops
    face = ops.parameter([n, FACE_SIDE, FACE_SIDE, 3], np.uint8)
    audio = ops.parameter([n, *generator.unet.audio_shape], np.float32)
    levels = ops.convert(ops.transpose(face, np.array([0, 3, 1, 2])), "f32")
    whole = ops.divide(levels, np.float32(MAX_LEVEL))
    both = ops.concat([whole, ops.multiply(whole, to_numpy(generator.mask))], 1)
    output = add_unet(graph, generator.unet, both, audio)
    levels = ops.convert(ops.floor(ops.multiply(output, np.float32(MAX_LEVEL))), "u8")
    image = ops.transpose(levels, np.array([0, 2, 3, 1]))
    return make_model([image], [face, audio], ("face", "audio", "image"), "AvatarGenerator")


def build_encoder(encoder: AudioVisualEncoder, n: int = -1) -> ov.Model:
    """Build the audio encoder.

    Input: mel (B, 1, 80, 16); output: features (B, F); all float32. n: a fixed batch B; -1 for any.
    """
    graph = OpenVinoOps()
    mel = graph.ops.parameter([n, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    features = graph.ops.squeeze(add_encoder(graph, encoder, mel), np.array([2, 3]))
    return make_model([features], [mel], ("mel", "features"), "AudioVisualEncoder")
