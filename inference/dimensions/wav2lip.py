"""Sizes and layers of Wav2Lip, and of the audio encoder that avatars share with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from inference.dimensions.layers import ConvLayer, Pair

FACE_SIDE = 96  # px
MEL_ROWS, MEL_COLUMNS = 80, 16
FACE_CHANNELS = 6  # the masked face, then the whole one, each BGR
# Residual layers after the first layer of each block.
FACE_ENCODER_RESIDUALS = (0, 2, 3, 2, 2, 1)
DECODER_RESIDUALS = (1, 2, 2, 2, 2, 2)
# Strides of the audio encoder's first layer of each width, and the residual layers after it.
AUDIO_STRIDES = ((1, 1), (3, 1), (3, 3), (3, 2))
AUDIO_RESIDUALS = (2, 2, 2, 1)
AUDIO_WIDTHS = (32, 64, 128, 256, 512)
AUDIO_WIDTH_STARTS = (0, 3, 6, 9, 11)  # layers of the audio encoder at which the width changes
AUDIO_ENCODER = "audio_encoder"


class Wav2LipWidths(NamedTuple):
    """Channels of each block, read from the checkpoint. The defaults are the published network's."""

    face_encoder: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 512)
    audio_encoder: tuple[int, ...] = AUDIO_WIDTHS
    face_decoder: tuple[int, ...] = (512, 512, 512, 384, 256, 128, 64)
    output: int = 32

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Wav2LipWidths:
        """Return the widths of a state dict of tensors or arrays.

        Raises: KeyError, IndexError if a tensor of every Wav2Lip is missing.
        """

        def width(layer: str, axis: int = 0) -> int:
            return int(tensors[f"{layer}.conv_block.0.weight"].shape[axis])

        return cls(
            tuple(width(f"face_encoder_blocks.{i}.0") for i in range(len(FACE_ENCODER_RESIDUALS) + 1)),
            audio_widths_of(tensors),
            # The weights of a transposed convolution have the input axis first.
            (width("face_decoder_blocks.0.0"), *(width(f"face_decoder_blocks.{i}.0", 1) for i in range(1, 7))),
            width("output_block.0"),
        )


def audio_widths_of(tensors: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the widths of an audio encoder. Raises: KeyError, IndexError if a tensor of every encoder is missing."""
    names = (f"{AUDIO_ENCODER}.{i}.conv_block.0.weight" for i in AUDIO_WIDTH_STARTS)
    return tuple(int(tensors[name].shape[0]) for name in names)


@dataclass(frozen=True)
class Wav2LipLayers:
    """Its layers, in the order of its state dict. output: the last one has no batch norm."""

    face_encoder: tuple[tuple[ConvLayer, ...], ...]
    audio_encoder: tuple[ConvLayer, ...]
    face_decoder: tuple[tuple[ConvLayer, ...], ...]
    output: tuple[ConvLayer, ConvLayer]

    @property
    def all(self) -> list[ConvLayer]:
        """The layers in order."""
        encode, decode = (
            [one for block in blocks for one in block] for blocks in (self.face_encoder, self.face_decoder)
        )
        return [*encode, *self.audio_encoder, *decode, *self.output]


def wav2lip_layers(widths: Wav2LipWidths) -> Wav2LipLayers:
    """Return the layers of a Wav2Lip with these widths."""
    joined = widths.face_decoder[-1] + widths.face_encoder[0]
    return Wav2LipLayers(
        face_encoder_layers(widths.face_encoder),
        audio_encoder_layers(widths.audio_encoder),
        face_decoder_layers(widths),
        (conv_block("output_block.0", joined, widths.output), output_layer("output_block.1", widths.output)),
    )


def conv_block(name: str, n_in: int, n_out: int, kernel: int = 3, stride: Pair = (1, 1), padding: int = 1) -> ConvLayer:
    """Return a convolution with its batch norm. name: of the block."""
    inner = f"{name}.conv_block"
    return ConvLayer(f"{inner}.0", n_in, n_out, kernel, stride, (padding, padding), norm=f"{inner}.1")


def output_layer(name: str, n_in: int) -> ConvLayer:
    return ConvLayer(name, n_in, 3, kernel=1, padding=(0, 0))


def residual_blocks(prefix: str, width: int, count: int) -> tuple[ConvLayer, ...]:
    """Return the residual layers that follow the first layer of a width. prefix: of the sequence, with its offset."""
    start, _, offset = prefix.rpartition(".")
    names = (f"{start}.{int(offset) + i}.conv_block" for i in range(count))
    return tuple(ConvLayer(f"{name}.0", width, width, norm=f"{name}.1", is_residual=True) for name in names)


def face_encoder_layers(widths: Sequence[int]) -> tuple[tuple[ConvLayer, ...], ...]:
    """Return the layers from 96 px a side to 1, by block."""
    blocks, n_in = [], FACE_CHANNELS
    for i, (n_out, n_residuals) in enumerate(zip(widths[:-1], FACE_ENCODER_RESIDUALS, strict=True)):
        name = f"face_encoder_blocks.{i}"
        kernel, stride, padding = (7, (1, 1), 3) if i == 0 else (3, (2, 2), 1)
        first = conv_block(f"{name}.0", n_in, n_out, kernel, stride, padding)
        blocks.append((first, *residual_blocks(f"{name}.1", n_out, n_residuals)))
        n_in = n_out
    return (*blocks, bottom_layers(f"face_encoder_blocks.{len(blocks)}", 0, n_in, widths[-1]))


def bottom_layers(prefix: str, start: int, n_in: int, n_out: int) -> tuple[ConvLayer, ConvLayer]:
    """Return the two layers from 3 x 3 to 1 x 1."""
    first = conv_block(f"{prefix}.{start}", n_in, n_out, 3, padding=0)
    return first, conv_block(f"{prefix}.{start + 1}", n_out, n_out, 1, padding=0)


def audio_encoder_layers(widths: Sequence[int]) -> tuple[ConvLayer, ...]:
    """Return the layers from 80 x 16 to 1 x 1."""
    layers: list[ConvLayer] = []
    n_in = 1
    for n_out, stride, n_residuals in zip(widths[:-1], AUDIO_STRIDES, AUDIO_RESIDUALS, strict=True):
        layers.append(conv_block(f"{AUDIO_ENCODER}.{len(layers)}", n_in, n_out, stride=stride))
        layers += residual_blocks(f"{AUDIO_ENCODER}.{len(layers)}", n_out, n_residuals)
        n_in = n_out
    return (*layers, *bottom_layers(AUDIO_ENCODER, len(layers), n_in, widths[-1]))


def face_decoder_layers(widths: Wav2LipWidths) -> tuple[tuple[ConvLayer, ...], ...]:
    """Return the layers from 1 px a side to 96, by block; a block takes the last one and the encoder's map."""
    outs, maps = widths.face_decoder, widths.face_encoder[::-1]
    blocks = [(conv_block("face_decoder_blocks.0.0", widths.audio_encoder[-1], outs[0], 1, padding=0),)]
    for i, n_residuals in enumerate(DECODER_RESIDUALS):
        name = f"face_decoder_blocks.{i + 1}"
        up = upsampling_block(f"{name}.0", outs[i] + maps[i], outs[i + 1], is_first=i == 0)
        blocks.append((up, *residual_blocks(f"{name}.1", outs[i + 1], n_residuals)))  # type: ignore[arg-type]
    return tuple(blocks)


def upsampling_block(name: str, n_in: int, n_out: int, *, is_first: bool) -> ConvLayer:
    """Return a transposed convolution with its batch norm: from 1x1 to 3x3 if it is the first, else it doubles."""
    inner = f"{name}.conv_block"
    if is_first:
        return ConvLayer(f"{inner}.0", n_in, n_out, padding=(0, 0), norm=f"{inner}.1", is_transposed=True)
    two, one = (2, 2), (1, 1)
    return ConvLayer(f"{inner}.0", n_in, n_out, 3, two, one, norm=f"{inner}.1", is_transposed=True, output_padding=one)
