"""Wav2Lip: from a face without its mouth, a reference face and audio to the speaking face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference.dimensions.wav2lip import (
    AUDIO_RESIDUALS,
    AUDIO_STRIDES,
    DECODER_RESIDUALS,
    FACE_CHANNELS,
    FACE_ENCODER_RESIDUALS,
    Wav2LipWidths,
)


class Conv2d(nn.Module):
    """Convolution, batch norm, plus the input if residual, ReLU."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(n_in, n_out, kernel, stride, padding), nn.BatchNorm2d(n_out))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_block(x)
        return torch.relu(out + x if self.residual else out)


class Conv2dTranspose(nn.Module):
    """Transposed convolution, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, *, first: bool = False) -> None:
        """Create the layer. first: from 1x1 to 3x3; else it doubles the side."""
        super().__init__()
        deconv = nn.ConvTranspose2d(n_in, n_out, 3) if first else nn.ConvTranspose2d(n_in, n_out, 3, 2, 1, 1)
        self.conv_block = nn.Sequential(deconv, nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv_block(x))


class Wav2Lip(nn.Module):
    """A U-Net over the face, with an audio embedding as its bottom.

    Source: Rudrabha/Wav2Lip models/wav2lip.py (names, order of layers, 36,298,035 parameters).
    Deliberately different: the widths are free.
    """

    def __init__(self, widths: Wav2LipWidths | None = None) -> None:
        super().__init__()
        self.widths = widths = widths or Wav2LipWidths()
        self.face_encoder_blocks = face_encoder(widths.face_encoder)
        self.audio_encoder = audio_encoder(widths.audio_encoder)
        self.face_decoder_blocks = face_decoder(widths)
        joined = widths.face_decoder[-1] + widths.face_encoder[0]
        self.output_block = nn.Sequential(Conv2d(joined, widths.output), nn.Conv2d(widths.output, 3, 1), nn.Sigmoid())

    def forward(self, audio: Tensor, face: Tensor) -> Tensor:
        """Return speaking faces: (B, 3, 96, 96) float, BGR, 0..1.

        audio: (B, 1, 80, 16) float mel, -4..4.
        face: (B, 6, 96, 96) float, BGR / 255: channels 0..2 with rows 48.. zero, 3..5 whole.
        """
        return self.draw(self.audio_encoder(audio), face)

    def draw(self, x: Tensor, face: Tensor) -> Tensor:
        """Return speaking faces as `forward` does.

        x: (B, widths.audio_encoder[-1], 1, 1), the audio encoder's output.
        """
        maps = []
        for encode in self.face_encoder_blocks:
            face = encode(face)
            maps.append(face)
        for decode in self.face_decoder_blocks:
            x = torch.cat([decode(x), maps.pop()], dim=1)
        out: Tensor = self.output_block(x)
        return out


def face_encoder(widths: Sequence[int]) -> nn.ModuleList:
    """Return the layers from 96 px a side to 1."""
    blocks = []
    n_in = FACE_CHANNELS
    for i, (n_out, n_residuals) in enumerate(zip(widths[:-1], FACE_ENCODER_RESIDUALS, strict=True)):
        first = Conv2d(n_in, n_out, 7, 1, 3) if i == 0 else Conv2d(n_in, n_out, stride=2)
        blocks.append(nn.Sequential(first, *residuals(n_out, n_residuals)))
        n_in = n_out
    blocks.append(nn.Sequential(Conv2d(n_in, widths[-1], 3, 1, 0), Conv2d(widths[-1], widths[-1], 1, 1, 0)))
    return nn.ModuleList(blocks)


def audio_encoder(widths: Sequence[int]) -> nn.Sequential:
    """Return the layers from 80 x 16 to 1 x 1."""
    layers: list[nn.Module] = []
    n_in = 1
    for n_out, stride, n_residuals in zip(widths[:-1], AUDIO_STRIDES, AUDIO_RESIDUALS, strict=True):
        layers += [Conv2d(n_in, n_out, stride=stride), *residuals(n_out, n_residuals)]
        n_in = n_out
    layers += [Conv2d(n_in, widths[-1], 3, 1, 0), Conv2d(widths[-1], widths[-1], 1, 1, 0)]
    return nn.Sequential(*layers)


def face_decoder(widths: Wav2LipWidths) -> nn.ModuleList:
    """Return the layers from 1 px a side to 96; the inputs of a block are the last one and the encoder's map."""
    outs, maps = widths.face_decoder, widths.face_encoder[::-1]
    blocks = [nn.Sequential(Conv2d(widths.audio_encoder[-1], outs[0], 1, 1, 0))]
    for i, n_residuals in enumerate(DECODER_RESIDUALS):
        up = Conv2dTranspose(outs[i] + maps[i], outs[i + 1], first=i == 0)
        blocks.append(nn.Sequential(up, *residuals(outs[i + 1], n_residuals)))
    return nn.ModuleList(blocks)


def residuals(width: int, count: int) -> list[nn.Module]:
    return [Conv2d(width, width, residual=True) for _ in range(count)]
