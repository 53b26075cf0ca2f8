"""The avatar's U-Net: from a face with and without its mouth, and audio features, to the speaking face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from inference.dimensions.avatar import (
    AUDIO_SHAPES,
    CONV3_STRIDES,
    EXPANSION,
    FACE_CHANNELS,
    FACE_SIDE,
    MASKED_COLUMNS,
    MASKED_ROWS,
    MODES,
    WIDTHS,
    UNetDimensions,
)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, a 1x1 that narrows; plus the input if residual."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1, *, residual: bool = False) -> None:
        super().__init__()
        n_wide = n_in * EXPANSION
        self.conv = nn.Sequential(
            nn.Conv2d(n_in, n_wide, 1, bias=False),
            nn.BatchNorm2d(n_wide),
            nn.ReLU(),
            nn.Conv2d(n_wide, n_wide, 3, stride, 1, groups=n_wide, bias=False),
            nn.BatchNorm2d(n_wide),
            nn.ReLU(),
            nn.Conv2d(n_wide, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out + x if self.residual else out


class DoubleConv(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            InvertedResidual(n_in, n_out, stride), InvertedResidual(n_out, n_out, residual=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.double_conv(x)
        return out


class Inlet(nn.Module):
    def __init__(self, n_out: int) -> None:
        super().__init__()
        self.inconv = nn.Sequential(InvertedResidual(FACE_CHANNELS, n_out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inconv(x)
        return out


class Down(nn.Module):
    """Halves the side (by its stride: the name is upstream's)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(DoubleConv(n_in, n_out, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.maxpool_conv(x)
        return out


class Up(nn.Module):
    """Doubles the side and concatenates the map of that size from the encoder."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = DoubleConv(n_in, n_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.conv(torch.cat([x, skip], dim=1))
        return out


class Outlet(nn.Module):
    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class AudioBranch(nn.Module):
    """From audio features to a map of the size of the deepest face map: 10 x 10."""

    def __init__(self, mode: str, n_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        is_wenet = mode == "wenet"
        wide, deep = widths[3], widths[4]
        n_first, n_second = (n_in, n_in) if is_wenet else (widths[1], widths[2])
        self.conv1 = InvertedResidual(n_in, n_first, residual=is_wenet)
        self.conv2 = InvertedResidual(n_first, n_second, residual=is_wenet)
        self.conv3 = nn.Conv2d(n_second, wide, 3, CONV3_STRIDES[mode], 1)
        self.bn3 = nn.BatchNorm2d(wide)
        self.conv4 = InvertedResidual(wide, wide, residual=True)
        self.conv5 = nn.Conv2d(wide, deep, 3, 2, 3)
        self.bn5 = nn.BatchNorm2d(deep)
        self.conv6 = InvertedResidual(deep, deep, residual=True)
        self.conv7 = InvertedResidual(deep, deep, residual=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn3(self.conv3(self.conv2(self.conv1(x)))))
        x = torch.relu(self.bn5(self.conv5(self.conv4(x))))
        out: Tensor = self.conv7(self.conv6(x))
        return out


class AvatarUNet(nn.Module):
    """A U-Net of depthwise convolutions over the face, with audio features added at its bottom.

    Source: SyncTalk_2D unet_328.py Model (names, order of layers, 12,186,935 parameters in mode ave).
    Deliberately different: widths and the number of audio channels are free, an unknown mode is rejected.
    """

    def __init__(self, mode: str = "ave", widths: Sequence[int] = WIDTHS, n_audio_channels: int | None = None) -> None:
        """Create the network.

        mode: the kind of audio features: ave, hubert, wenet. widths: channels from the largest map to the deepest.
        n_audio_channels: None for the mode's number upstream; 16 rows of F features have F / 16 channels.
        Raises: ValueError if the mode does not exist, or there are not five widths.
        """
        super().__init__()
        if mode not in MODES or len(widths) != len(WIDTHS):
            raise ValueError(f"mode {mode!r}, {len(widths)} widths; expected one of {', '.join(MODES)}, {len(WIDTHS)}")
        self.mode, self.widths = mode, tuple(widths)
        n_audio = n_audio_channels or AUDIO_SHAPES[mode][0]
        self.audio_shape = (n_audio, *AUDIO_SHAPES[mode][1:])
        w = self.widths
        self.audio_model = AudioBranch(mode, n_audio, w)
        self.fuse_conv = nn.Sequential(DoubleConv(2 * w[4], w[4]), DoubleConv(w[4], w[3]))
        self.inc = Inlet(w[0])
        self.down1, self.down2 = Down(w[0], w[0]), Down(w[0], w[1])
        self.down3, self.down4, self.down5 = Down(w[1], w[2]), Down(w[2], w[3]), Down(w[3], w[4])
        outs = (w[3] // 2, w[2] // 2, w[1] // 2, w[0], w[0] // 2)
        self.up1, self.up2 = Up(w[3] + w[3], outs[0]), Up(outs[0] + w[2], outs[1])
        self.up3, self.up4 = Up(outs[1] + w[1], outs[2]), Up(outs[2] + w[0], outs[3])
        self.up5 = Up(outs[3] + w[0], outs[4])
        self.outc = Outlet(outs[4])

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor], mode: str | None = None) -> AvatarUNet:
        """Create a network with the widths of a state dict, but not its values.

        mode: None recognises wenet by its shapes, and takes ave otherwise: hubert has the same tensors as ave.
        Raises: KeyError, IndexError if a tensor of every avatar's U-Net is missing.
        """
        sizes = UNetDimensions.of(tensors, mode)
        return cls(sizes.mode, sizes.widths, sizes.n_audio_channels)

    def forward(self, face: Tensor, audio: Tensor) -> Tensor:
        """Return speaking faces: (B, 3, 320, 320) float, BGR, 0..1.

        face: (B, 6, 320, 320) float, BGR / 255: channels 0..2 whole, 3..5 masked.
        audio: (B, *audio_shape) float; in mode ave 16 rows of 512 features, reshaped to (32, 16, 16).
        """
        x1 = self.inc(face)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        x = self.fuse_conv(torch.cat([self.down5(x5), self.audio_model(audio)], dim=1))
        for up, skip in ((self.up1, x5), (self.up2, x4), (self.up3, x3), (self.up4, x2), (self.up5, x1)):
            x = up(x, skip)
        return torch.sigmoid(self.outc(x))


class AvatarGenerator(nn.Module):
    """The U-Net from image to image: scaling the levels and masking the mouth are part of the graph."""

    mask: Tensor

    def __init__(self, unet: AvatarUNet) -> None:
        super().__init__()
        self.unet = unet
        mask = torch.ones(1, 1, FACE_SIDE, FACE_SIDE)
        mask[:, :, MASKED_ROWS, MASKED_COLUMNS] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, face: Tensor, audio: Tensor) -> Tensor:
        """Return speaking faces: (B, 320, 320, 3) uint8 BGR, truncated as upstream.

        face: (B, 320, 320, 3) uint8 BGR. audio: (B, *audio_shape) float.
        """
        dtype = self.mask.dtype  # float32, or the precision on a GPU
        whole = face.permute(0, 3, 1, 2).to(dtype) / 255
        faces: Tensor = self.unet(torch.cat([whole, whole * self.mask], dim=1), audio.to(dtype))
        return (faces.float() * 255).floor().to(torch.uint8).permute(0, 2, 3, 1)
