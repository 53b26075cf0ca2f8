"""Wav2Lip and S3FD as OpenVINO graphs, built layer by layer, each batch norm folded into its convolution.

OpenVINO's conversion of the torch modules takes about a second longer at each start. And a graph that never changes
can be compared with the graph in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.graphs.folded_conv import FoldedConv, fold
from inference.backends.graphs.model import Array, Node, as_float32, import_ops, make_model
from inference.dimensions.layers import ConvLayer
from inference.dimensions.s3fd import HEADS, NORM_EPSILON, VGG_BLOCKS, s3fd_layers
from inference.dimensions.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS, Wav2LipWidths, wav2lip_layers

if TYPE_CHECKING:
    import openvino as ov

FIRST_NORMALISED_BLOCK = 3  # of VGG: it and the later blocks give feature maps that faces are detected in
NO_PADDING = (0, 0)


def build_wav2lip(state: Mapping[str, Any]) -> ov.Model:
    """Build Wav2Lip from the tensors or arrays of a state dict.

    Inputs: audio (B, 1, 80, 16), face (B, 6, 96, 96); output: faces (B, 3, 96, 96); all float32.
    """
    ops, weights, layers = import_ops(), as_float32(state), wav2lip_layers(Wav2LipWidths.of(state))
    audio = ops.parameter([-1, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    face = ops.parameter([-1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE], np.float32)
    x, y = audio, face
    for layer in layers.audio_encoder:
        x = add_block(ops, weights, layer, x)
    maps = []
    for block in layers.face_encoder:
        for layer in block:
            y = add_block(ops, weights, layer, y)
        maps.append(y)
    for block in layers.face_decoder:
        for layer in block:
            x = add_block(ops, weights, layer, x)
        x = ops.concat([x, maps.pop()], 1)
    last_but_one, last = layers.output
    x = add_block(ops, weights, last_but_one, x)
    x = ops.sigmoid(add_convolution(ops, fold(weights, last), last.name, x))
    return make_model([x], [audio, face], ("audio", "face", "faces"), "Wav2Lip")


def build_s3fd(state: Mapping[str, Any]) -> ov.Model:
    """Build S3FD from the tensors or arrays of a state dict.

    Input: image (B, 3, H, W); outputs: logits (B, 2, h, w) and offsets (B, 4, h, w) of each scale, finest first.
    """
    ops, weights, layers = import_ops(), as_float32(state), s3fd_layers()
    image = ops.parameter([-1, 3, -1, -1], np.float32)

    def plain(name: str, x: Node) -> Node:
        return add_convolution(ops, fold(weights, layers[name]), name, x)

    outputs, names = [], ["image"]
    for (name, _, n_classes), feature_map in zip(HEADS, add_feature_maps(ops, weights, plain, image), strict=True):
        logits = plain(f"{name}_mbox_conf", feature_map)
        if n_classes > 2:  # several background classes: the likeliest counts
            background, face = ops.variadic_split(logits, 1, np.array([n_classes - 1, 1])).outputs()
            logits = ops.concat([ops.reduce_max(background, np.array([1]), keep_dims=True), face], 1)
        outputs += [logits, plain(f"{name}_mbox_loc", feature_map)]
        names += [f"{name}_logits", f"{name}_offsets"]
    return make_model(outputs, [image], names, "S3FD")


def add_feature_maps(ops: Any, weights: Mapping[str, Array], plain: Callable[[str, Node], Node], x: Node) -> list[Node]:
    """Add the backbone and return its six feature maps, as `S3FD.forward` computes them.

    plain: adds the convolution of a name.
    """
    maps = []
    for block, (n_layers, _) in enumerate(VGG_BLOCKS, 1):
        for layer in range(1, n_layers + 1):
            x = ops.relu(plain(f"conv{block}_{layer}", x))
        if block >= FIRST_NORMALISED_BLOCK:
            maps.append(add_norm(ops, weights[f"conv{block}_3_norm.weight"], x))
        x = ops.max_pool(x, (2, 2), (1, 1), NO_PADDING, NO_PADDING, (2, 2)).output(0)
    for names in (("fc6", "fc7"), ("conv6_1", "conv6_2"), ("conv7_1", "conv7_2")):
        for name in names:
            x = ops.relu(plain(name, x))
        maps.append(x)
    return maps


def add_block(ops: Any, weights: Mapping[str, Array], layer: ConvLayer, x: Node) -> Node:
    """Add a block: convolution with folded batch norm, the residual sum if the block has one, ReLU."""
    name = layer.name.removesuffix(".conv_block.0")
    add = add_deconvolution if layer.is_transposed else add_convolution
    y = add(ops, fold(weights, layer), name, x)
    return ops.relu(ops.add(y, x) if layer.is_residual else y)


def add_convolution(ops: Any, conv: FoldedConv, name: str, x: Node) -> Node:
    layer = conv.layer
    y = ops.convolution(x, conv.weight, layer.stride, layer.padding, layer.padding, (1, 1), name=name)
    return ops.add(y, conv.bias.reshape(1, -1, 1, 1))


def add_deconvolution(ops: Any, conv: FoldedConv, name: str, x: Node) -> Node:
    layer = conv.layer
    y = ops.convolution_backprop_data(
        x,
        conv.weight,
        layer.stride,
        pads_begin=layer.padding,
        pads_end=layer.padding,
        dilations=(1, 1),
        output_padding=layer.output_padding,
        name=name,
    )
    return ops.add(y, conv.bias.reshape(1, -1, 1, 1))


def add_norm(ops: Any, weight: Array, x: Node) -> Node:
    """Add an L2 norm: scale each pixel's vector to length 1, then multiply by one weight per channel."""
    length = ops.sqrt(ops.reduce_sum(ops.multiply(x, x), np.array([1]), keep_dims=True))
    unit = ops.divide(x, ops.add(length, np.float32(NORM_EPSILON)))
    return ops.multiply(unit, weight.reshape(1, -1, 1, 1))
