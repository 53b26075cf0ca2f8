"""Sizes and layers of the avatar's U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.dimensions.layers import ConvLayer, Pair

FACE_SIDE = 320  # px
FACE_CHANNELS = 6  # the whole face, then the masked one, each BGR: the reverse of Wav2Lip's order
WIDTHS = (32, 64, 128, 256, 512)
# Shape of each kind of audio features: channels, rows, columns.
AUDIO_SHAPES = {"ave": (32, 16, 16), "hubert": (32, 32, 32), "wenet": (256, 16, 32)}
MODES = tuple(AUDIO_SHAPES)
CONV3_STRIDES = {"ave": (1, 1), "hubert": (2, 2), "wenet": (1, 2)}
EXPANSION = 2
# The part of the 320 px that is masked, and that the network generates. Upstream's rectangle (5, 5, 310, 305).
MASKED_ROWS, MASKED_COLUMNS = slice(5, 310), slice(5, 315)


@dataclass(frozen=True)
class UNetDimensions:
    """mode: the kind of audio features: ave, hubert, wenet. widths: channels from the largest map to the deepest."""

    mode: str
    widths: tuple[int, ...]
    n_audio_channels: int

    def __post_init__(self) -> None:
        if self.mode not in MODES or len(self.widths) != len(WIDTHS):
            found = f"mode {self.mode!r}, {len(self.widths)} widths"
            raise ValueError(f"{found}; expected one of {', '.join(MODES)}, {len(WIDTHS)}")

    @classmethod
    def published(cls, mode: str) -> UNetDimensions:
        """Return the dimensions of the published network of this mode. Raises: ValueError if it does not exist."""
        return cls(mode, WIDTHS, AUDIO_SHAPES.get(mode, (0,))[0])

    @classmethod
    def of(cls, tensors: Mapping[str, Any], mode: str | None = None) -> UNetDimensions:
        """Return the dimensions of a state dict of tensors or arrays.

        mode: None recognises wenet by its shapes, and takes ave otherwise: hubert has the same tensors as ave.
        Raises: KeyError, IndexError if a tensor of every avatar's U-Net is missing.
        """
        first = tensors["audio_model.conv1.conv.0.weight"]
        is_wenet = first.shape[1] == tensors["audio_model.conv2.conv.6.weight"].shape[0]
        downs = (tensors[f"down{i}.maxpool_conv.0.double_conv.0.conv.6.weight"].shape[0] for i in range(2, 6))
        widths = (tensors["inc.inconv.0.conv.6.weight"].shape[0], *downs)
        return cls(mode or ("wenet" if is_wenet else "ave"), tuple(map(int, widths)), int(first.shape[1]))

    @property
    def audio_shape(self) -> tuple[int, int, int]:
        """Shape of the audio features; 16 rows of F features have F / 16 channels."""
        _, n_rows, n_columns = AUDIO_SHAPES[self.mode]
        return (self.n_audio_channels, n_rows, n_columns)


def unet_layers(sizes: UNetDimensions) -> dict[str, ConvLayer]:
    """Return its convolutions by name, in the order of its state dict."""
    w = sizes.widths
    outs = (w[3] // 2, w[2] // 2, w[1] // 2, w[0], w[0] // 2)
    layers = [
        *audio_layers(sizes),
        *double_conv("fuse_conv.0", 2 * w[4], w[4]),
        *double_conv("fuse_conv.1", w[4], w[3]),
        *inverted_residual("inc.inconv.0", FACE_CHANNELS, w[0]),
    ]
    for i, (n_in, n_out) in enumerate(zip((w[0], *w), w, strict=False), 1):
        layers += double_conv(f"down{i}.maxpool_conv.0", n_in, n_out, stride=(2, 2))
    skips = (w[3], w[2], w[1], w[0], w[0])
    for i, (n_in, n_skip, n_out) in enumerate(zip((w[3], *outs), skips, outs, strict=False), 1):
        layers += double_conv(f"up{i}.conv", n_in + n_skip, n_out)
    layers.append(ConvLayer("outc.conv", outs[4], 3, 1, padding=(0, 0)))
    return {layer.name: layer for layer in layers}


def audio_layers(sizes: UNetDimensions) -> list[ConvLayer]:
    """Return the layers from audio features to a map of the size of the deepest face map: 10 x 10."""
    is_wenet, n_in = sizes.mode == "wenet", sizes.n_audio_channels
    wide, deep = sizes.widths[3], sizes.widths[4]
    n_first, n_second = (n_in, n_in) if is_wenet else (sizes.widths[1], sizes.widths[2])
    name = "audio_model"
    stride = CONV3_STRIDES[sizes.mode]
    return [
        *inverted_residual(f"{name}.conv1", n_in, n_first, is_residual=is_wenet),
        *inverted_residual(f"{name}.conv2", n_first, n_second, is_residual=is_wenet),
        ConvLayer(f"{name}.conv3", n_second, wide, 3, stride, norm=f"{name}.bn3"),
        *inverted_residual(f"{name}.conv4", wide, wide, is_residual=True),
        ConvLayer(f"{name}.conv5", wide, deep, 3, (2, 2), (3, 3), norm=f"{name}.bn5"),
        *inverted_residual(f"{name}.conv6", deep, deep, is_residual=True),
        *inverted_residual(f"{name}.conv7", deep, deep, is_residual=True),
    ]


def double_conv(name: str, n_in: int, n_out: int, stride: Pair = (1, 1)) -> list[ConvLayer]:
    return [
        *inverted_residual(f"{name}.double_conv.0", n_in, n_out, stride),
        *inverted_residual(f"{name}.double_conv.1", n_out, n_out, is_residual=True),
    ]


def inverted_residual(
    name: str, n_in: int, n_out: int, stride: Pair = (1, 1), *, is_residual: bool = False
) -> list[ConvLayer]:
    """Return a 1x1 convolution that widens, a depthwise one, a 1x1 that narrows."""
    wide, none = n_in * EXPANSION, (0, 0)
    names = [f"{name}.conv.{i}" for i in (0, 3, 6)]
    norms = [f"{name}.conv.{i}" for i in (1, 4, 7)]
    return [
        ConvLayer(names[0], n_in, wide, 1, padding=none, has_bias=False, norm=norms[0]),
        ConvLayer(names[1], wide, wide, 3, stride, groups=wide, has_bias=False, norm=norms[1]),
        ConvLayer(names[2], wide, n_out, 1, padding=none, has_bias=False, norm=norms[2], is_residual=is_residual),
    ]
