"""S3FD: a face detector with six scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference.dimensions.s3fd import BOX_SIZE, HEADS, NORM_EPSILON, VGG_BLOCKS


class L2Norm(nn.Module):
    """Normalises each pixel's vector to length 1, then multiplies each channel by a weight."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        length = x.pow(2).sum(dim=1, keepdim=True).sqrt() + NORM_EPSILON
        return x / length * self.weight[None, :, None, None]


class S3FD(nn.Module):
    """VGG-16 with two more blocks, and a classifier and a box regressor on six of its maps.

    Source: Rudrabha/Wav2Lip face_detection/detection/sfd/net_s3fd.py (names, order of layers).
    """

    def __init__(self) -> None:
        super().__init__()
        n_in = 3
        for block, (n_layers, width) in enumerate(VGG_BLOCKS, 1):
            for layer in range(1, n_layers + 1):
                self.add_module(f"conv{block}_{layer}", nn.Conv2d(n_in, width, 3, padding=1))
                n_in = width
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=3)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.conv6_1 = nn.Conv2d(1024, 256, 1)
        self.conv6_2 = nn.Conv2d(256, 512, 3, stride=2, padding=1)
        self.conv7_1 = nn.Conv2d(512, 128, 1)
        self.conv7_2 = nn.Conv2d(128, 256, 3, stride=2, padding=1)
        self.conv3_3_norm = L2Norm(256, 10)
        self.conv4_3_norm = L2Norm(512, 8)
        self.conv5_3_norm = L2Norm(512, 5)
        for name, width, n_classes in HEADS:
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(width, n_classes, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(width, BOX_SIZE, 3, padding=1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return twelve maps: logits (B, 2, h, w) and box offsets (B, 4, h, w) of each scale, finest first.

        image: (B, 3, H, W) float, see `faces.s3fd`.
        """
        maps = self._feature_maps(image)
        outputs: list[Tensor] = []
        for (name, _, n_classes), found in zip(HEADS, maps, strict=True):
            logits = self.get_submodule(f"{name}_mbox_conf")(found)
            if n_classes > 2:  # the finest scale has three background classes; the likeliest counts
                background = logits[:, : n_classes - 1].amax(dim=1, keepdim=True)
                logits = torch.cat([background, logits[:, n_classes - 1 :]], dim=1)
            outputs += [logits, self.get_submodule(f"{name}_mbox_loc")(found)]
        return tuple(outputs)

    def _feature_maps(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block, (n_layers, _) in enumerate(VGG_BLOCKS, 1):
            for layer in range(1, n_layers + 1):
                x = torch.relu(self.get_submodule(f"conv{block}_{layer}")(x))
            if block >= 3:
                maps.append(self.get_submodule(f"conv{block}_3_norm")(x))
            x = nn.functional.max_pool2d(x, 2, 2)
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        maps.append(x)
        for block in (6, 7):
            x = torch.relu(self.get_submodule(f"conv{block}_1")(x))
            x = torch.relu(self.get_submodule(f"conv{block}_2")(x))
            maps.append(x)
        return maps
