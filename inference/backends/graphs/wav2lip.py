"""Wav2Lip and S3FD as OpenVINO graphs, built layer by layer, each batch norm folded into its convolution.

OpenVINO's conversion of the torch modules takes about a second longer at each start. And a graph that never changes
can be compared with the graph in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from inference.backends.graphs.model import Array, Node, import_ops, make_model, to_numpy
from inference.models import S3FD, Wav2Lip
from inference.models.s3fd import HEADS, NORM_EPSILON, VGG_BLOCKS, L2Norm
from inference.models.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS, Conv2d, Conv2dTranspose

if TYPE_CHECKING:
    import openvino as ov

FIRST_NORMALISED_BLOCK = 3  # of VGG: it and the later blocks give feature maps that faces are detected in
NO_PADDING = (0, 0)


def build_wav2lip(module: Wav2Lip) -> ov.Model:
    """Build Wav2Lip.

    Inputs: audio (B, 1, 80, 16), face (B, 6, 96, 96); output: faces (B, 3, 96, 96); all float32.
    """
    ops = import_ops()
    audio = ops.parameter([-1, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    face = ops.parameter([-1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE], np.float32)
    x, y = audio, face
    for layer in named_layers(module, "audio_encoder"):
        x = add_layer(ops, x, *layer)
    maps = []
    for i in range(len(module.face_encoder_blocks)):
        for layer in named_layers(module, f"face_encoder_blocks.{i}"):
            y = add_layer(ops, y, *layer)
        maps.append(y)
    for i in range(len(module.face_decoder_blocks)):
        for layer in named_layers(module, f"face_decoder_blocks.{i}"):
            x = add_layer(ops, x, *layer)
        x = ops.concat([x, maps.pop()], 1)
    (last_but_one, last) = list(named_layers(module, "output_block"))[:2]
    x = add_layer(ops, x, *last_but_one)
    x = ops.sigmoid(add_convolution(ops, x, last[0], to_numpy(last[1].weight), to_numpy(last[1].bias), last[1]))
    return make_model([x], [audio, face], ("audio", "face", "faces"), "Wav2Lip")


def build_s3fd(module: S3FD) -> ov.Model:
    """Build S3FD.

    Input: image (B, 3, H, W); outputs: logits (B, 2, h, w) and offsets (B, 4, h, w) of each scale, finest first.
    """
    ops = import_ops()
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    outputs, names = [], ["image"]
    for (name, _, n_classes), feature_map in zip(HEADS, add_feature_maps(ops, module, image), strict=True):
        logits = add_plain(ops, module, f"{name}_mbox_conf", feature_map)
        if n_classes > 2:  # several background classes: the likeliest counts
            background, face = ops.variadic_split(logits, 1, np.array([n_classes - 1, 1])).outputs()
            logits = ops.concat([ops.reduce_max(background, np.array([1]), keep_dims=True), face], 1)
        outputs += [logits, add_plain(ops, module, f"{name}_mbox_loc", feature_map)]
        names += [f"{name}_logits", f"{name}_offsets"]
    return make_model(outputs, [image], names, "S3FD")


def add_feature_maps(ops: Any, module: S3FD, x: Node) -> list[Node]:
    """Add the backbone and return its six feature maps, as `S3FD.forward` computes them."""
    maps = []
    for block, (n_layers, _) in enumerate(VGG_BLOCKS, 1):
        for layer in range(1, n_layers + 1):
            x = ops.relu(add_plain(ops, module, f"conv{block}_{layer}", x))
        if block >= FIRST_NORMALISED_BLOCK:
            maps.append(add_norm(ops, module.get_submodule(f"conv{block}_3_norm"), x))
        x = ops.max_pool(x, (2, 2), (1, 1), NO_PADDING, NO_PADDING, (2, 2)).output(0)
    for names in (("fc6", "fc7"), ("conv6_1", "conv6_2"), ("conv7_1", "conv7_2")):
        for name in names:
            x = ops.relu(add_plain(ops, module, name, x))
        maps.append(x)
    return maps


def named_layers(module: nn.Module, prefix: str) -> list[tuple[str, Any]]:
    return [(f"{prefix}.{name}", layer) for name, layer in module.get_submodule(prefix).named_children()]


def add_layer(ops: Any, x: Node, name: str, layer: Conv2d | Conv2dTranspose) -> Node:
    """Add a block: convolution with folded batch norm, the residual sum if the block has one, ReLU."""
    conv, norm = layer.conv_block[0], layer.conv_block[1]
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    is_transposed = isinstance(conv, nn.ConvTranspose2d)
    scale = to_numpy(norm.weight) / np.sqrt(to_numpy(norm.running_var) + norm.eps)
    bias = (to_numpy(conv.bias) - to_numpy(norm.running_mean)) * scale + to_numpy(norm.bias)
    by_output = scale[None, :, None, None] if is_transposed else scale[:, None, None, None]
    weight = to_numpy(conv.weight) * by_output
    if isinstance(conv, nn.ConvTranspose2d):
        y = add_deconvolution(ops, x, name, weight, bias, conv)
    else:
        y = add_convolution(ops, x, name, weight, bias, conv)
    if getattr(layer, "residual", False):
        y = ops.add(y, x)
    return ops.relu(y)


def add_plain(ops: Any, module: nn.Module, name: str, x: Node) -> Node:
    """Add a convolution without a norm."""
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return add_convolution(ops, x, name, to_numpy(conv.weight), to_numpy(conv.bias), conv)


def add_convolution(ops: Any, x: Node, name: str, weight: Array, bias: Array, conv: nn.Conv2d) -> Node:
    y = ops.convolution(x, weight, conv.stride, conv.padding, conv.padding, (1, 1), name=name)
    return ops.add(y, bias.reshape(1, -1, 1, 1))


def add_deconvolution(ops: Any, x: Node, name: str, weight: Array, bias: Array, conv: nn.ConvTranspose2d) -> Node:
    y = ops.convolution_backprop_data(
        x,
        weight,
        conv.stride,
        pads_begin=conv.padding,
        pads_end=conv.padding,
        dilations=(1, 1),
        output_padding=conv.output_padding,
        name=name,
    )
    return ops.add(y, bias.reshape(1, -1, 1, 1))


def add_norm(ops: Any, norm: nn.Module, x: Node) -> Node:
    """Add an L2 norm: scale each pixel's vector to length 1, then multiply by one weight per channel."""
    assert isinstance(norm, L2Norm)
    length = ops.sqrt(ops.reduce_sum(ops.multiply(x, x), np.array([1]), keep_dims=True))
    unit = ops.divide(x, ops.add(length, np.float32(NORM_EPSILON)))
    return ops.multiply(unit, to_numpy(norm.weight).reshape(1, -1, 1, 1))
