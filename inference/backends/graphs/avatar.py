"""The avatar's two networks as graphs, built layer by layer, each batch norm folded into its convolution.

One description serves OpenVINO, which runs it, and the import of ONNX files, which compares them with it. OpenVINO's
conversion of the torch U-Net takes 11 s and 690 MB at each start; this takes half a second and 60 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inference.backends.graphs.folded_conv import FoldedConv, fold
from inference.backends.graphs.model import Array, as_float32, import_ops, make_model
from inference.dimensions.avatar import (
    FACE_CHANNELS,
    FACE_SIDE,
    MASKED_COLUMNS,
    MASKED_ROWS,
    UNetDimensions,
    unet_layers,
)
from inference.dimensions.layers import ConvLayer
from inference.dimensions.wav2lip import MEL_COLUMNS, MEL_ROWS, audio_encoder_layers, audio_widths_of

if TYPE_CHECKING:
    import openvino as ov

Node = Any  # openvino.Node, or a step of a recorded graph
MAX_LEVEL = 255


class GraphOps(Protocol):
    """The operations that the networks consist of."""

    def conv(self, x: Node, conv: FoldedConv) -> Node: ...

    def relu(self, x: Node) -> Node: ...

    def add(self, x: Node, y: Node) -> Node: ...

    def concat(self, x: Node, y: Node) -> Node:
        """Join along the channels."""

    def upsample(self, x: Node) -> Node:
        """Double height and width: bilinear, with aligned corners."""

    def sigmoid(self, x: Node) -> Node: ...


@dataclass(frozen=True)
class GraphWeights:
    """A network's layers by name, and its weights: float32 arrays by the names of torch's state dict."""

    layers: Mapping[str, ConvLayer]
    arrays: Mapping[str, Array]

    def fold(self, name: str) -> FoldedConv:
        """Return a convolution with its batch norm folded in."""
        return fold(self.arrays, self.layers[name])


def unet_weights(state: Mapping[str, Any], sizes: UNetDimensions) -> GraphWeights:
    """Return the weights of a U-Net's state dict of tensors or arrays."""
    return GraphWeights(unet_layers(sizes), as_float32(state))


def encoder_weights(state: Mapping[str, Any]) -> GraphWeights:
    """Return the weights of an audio encoder's state dict of tensors or arrays."""
    layers = {layer.name: layer for layer in audio_encoder_layers(audio_widths_of(state))}
    return GraphWeights(layers, as_float32(state))


def add_unet(ops: GraphOps, unet: GraphWeights, face: Node, audio: Node) -> Node:
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
    return ops.sigmoid(ops.conv(x, unet.fold("outc.conv")))


def add_audio(ops: GraphOps, unet: GraphWeights, x: Node) -> Node:
    """Add the layers of `AudioBranch.forward`."""
    for i in range(1, 8):
        name = f"audio_model.conv{i}"
        is_plain = name in unet.layers
        x = ops.relu(ops.conv(x, unet.fold(name))) if is_plain else add_inverted(ops, unet, name, x)
    return x


def add_double_conv(ops: GraphOps, unet: GraphWeights, name: str, x: Node) -> Node:
    for i in range(2):
        x = add_inverted(ops, unet, f"{name}.double_conv.{i}", x)
    return x


def add_inverted(ops: GraphOps, unet: GraphWeights, name: str, x: Node) -> Node:
    """Add an inverted residual block."""
    y = x
    for i in (0, 3, 6):
        y = ops.conv(y, unet.fold(f"{name}.conv.{i}"))
        y = y if i == 6 else ops.relu(y)
    return ops.add(x, y) if unet.layers[f"{name}.conv.6"].is_residual else y


def add_encoder(ops: GraphOps, encoder: GraphWeights, mel: Node) -> Node:
    """Add the layers of `AudioVisualEncoder.forward`: (B, 1, 80, 16) -> features (B, F, 1, 1)."""
    x = mel
    for name, layer in encoder.layers.items():
        y = ops.conv(x, encoder.fold(name))
        x = ops.relu(ops.add(x, y) if layer.is_residual else y)
    return x


class OpenVinoOps:
    """Builds nodes of OpenVINO; see `GraphOps`."""

    def __init__(self) -> None:
        self.ops: Any = import_ops()

    def conv(self, x: Node, conv: FoldedConv) -> Node:
        layer, weight, pads = conv.layer, conv.weight, conv.layer.padding
        if layer.groups > 1:
            weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
            x = self.ops.group_convolution(x, weight, layer.stride, pads, pads, (1, 1), name=layer.name)
        else:
            x = self.ops.convolution(x, weight, layer.stride, pads, pads, (1, 1), name=layer.name)
        return self.ops.add(x, conv.bias.reshape(1, -1, 1, 1))

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


def build_unet(state: Mapping[str, Any], sizes: UNetDimensions) -> ov.Model:
    """Build the U-Net from the tensors or arrays of a state dict.

    Inputs: input (B, 6, 320, 320), audio (B, *audio_shape); output: output (B, 3, 320, 320); all float32.
    """
    graph = OpenVinoOps()
    face = graph.ops.parameter([-1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE], np.float32)
    audio = graph.ops.parameter([-1, *sizes.audio_shape], np.float32)
    output = add_unet(graph, unet_weights(state, sizes), face, audio)
    return make_model([output], [face, audio], ("input", "audio", "output"), "AvatarUNet")


def build_generator(state: Mapping[str, Any], sizes: UNetDimensions, n: int = 1) -> ov.Model:
    """Build the network that takes and returns images from a U-Net's state dict: see `AvatarGenerator.forward`.

    Inputs: face (n, 320, 320, 3) uint8 BGR, audio (n, *audio_shape) float32; output: image, like face.
    n: a fixed batch, so that OpenVINO plans its memory in advance: half of what a dynamic batch takes; -1 for any.
    """
    graph = OpenVinoOps()
    ops = graph.ops
    face = ops.parameter([n, FACE_SIDE, FACE_SIDE, 3], np.uint8)
    audio = ops.parameter([n, *sizes.audio_shape], np.float32)
    levels = ops.convert(ops.transpose(face, np.array([0, 3, 1, 2])), "f32")
    whole = ops.divide(levels, np.float32(MAX_LEVEL))
    both = ops.concat([whole, ops.multiply(whole, mouth_mask())], 1)
    output = add_unet(graph, unet_weights(state, sizes), both, audio)
    levels = ops.convert(ops.floor(ops.multiply(output, np.float32(MAX_LEVEL))), "u8")
    image = ops.transpose(levels, np.array([0, 2, 3, 1]))
    return make_model([image], [face, audio], ("face", "audio", "image"), "AvatarGenerator")


def mouth_mask() -> Array:
    """Return the mask of `AvatarGenerator`: 0 in the part that is generated, else 1."""
    mask = np.ones((1, 1, FACE_SIDE, FACE_SIDE), np.float32)
    mask[:, :, MASKED_ROWS, MASKED_COLUMNS] = 0
    return mask


def build_encoder(state: Mapping[str, Any], n: int = -1) -> ov.Model:
    """Build the audio encoder from the tensors or arrays of a state dict.

    Input: mel (B, 1, 80, 16); output: features (B, F); all float32. n: a fixed batch B; -1 for any.
    """
    graph = OpenVinoOps()
    mel = graph.ops.parameter([n, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    features = graph.ops.squeeze(add_encoder(graph, encoder_weights(state), mel), np.array([2, 3]))
    return make_model([features], [mel], ("mel", "features"), "AudioVisualEncoder")
