"""Sizes and layers of the speech encoder: Wav2Lip's audio encoder without its last layer, and linear readouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inference.dimensions.layers import ConvLayer, Shape, shapes_of
from inference.dimensions.wav2lip import AUDIO_ENCODER, AUDIO_WIDTH_STARTS, audio_encoder_layers

LAYERS = "layers"  # first part of the layers' names
N_SHAPES = 3  # opening, height, width


def speech_widths_of(tensors: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the channels of each block. Raises: KeyError, IndexError if a tensor of every encoder is missing."""
    return tuple(int(tensors[f"{LAYERS}.{i}.conv_block.0.weight"].shape[0]) for i in AUDIO_WIDTH_STARTS)


def speech_encoder_layers(widths: Sequence[int]) -> tuple[ConvLayer, ...]:
    """Return the layers from 80 x 16 to 1 x 1."""
    return tuple(rename(layer) for layer in audio_encoder_layers(widths)[:-1])


def rename(layer: ConvLayer) -> ConvLayer:
    names = (name and name.replace(AUDIO_ENCODER, LAYERS, 1) for name in (layer.name, layer.norm))
    return replace(layer, **dict(zip(("name", "norm"), names, strict=True)))  # type: ignore[arg-type]


def speech_encoder_shapes(widths: Sequence[int], n_classes: int) -> dict[str, Shape]:
    """Return the shapes of the tensors of a speech encoder."""
    readouts = {"form": N_SHAPES - 1, "contact": 1, "phoneme": n_classes}
    linear: dict[str, Shape] = {}
    for name, n_out in readouts.items():
        linear |= {f"{name}.weight": (n_out, widths[-1]), f"{name}.bias": (n_out,)}
    return shapes_of(speech_encoder_layers(widths)) | linear
