"""A small network that locates the lips in a face of 96 x 96, so that a loss can compare the mouths of two faces.

Errors of pixels are smallest for a mouth that moves too little. The lips that this network finds in a drawn mouth and
in the true one must be the same. It learns from the landmarks of the faces that are trained on, also soft ones, as
drawn faces are soft; and while a network draws, it does not learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.arrays import Bytes, Floats
from training.common.lips import INNER_BOTTOM, INNER_TOP
from training.common.loop import learning_rate_at, minimise, set_learning_rate
from training.lip_sync.augmentation import change_appearance, draw_warp, mirror, reduce_detail, warp_face, warp_points
from training.lip_sync.facial_hair import FACIAL_HAIR_SHARE, draw_facial_hair
from training.lip_sync.samples import PreparedClip

N_LIPS = 20
FIRST_ROW = 40  # rows above show no mouth
CHANNELS = (16, 32, 64, 96, 128)
POINT_SCALE = 16.0  # px: unit of the network's outputs
SOFT_SHARE, SOFTEST = 0.5, 0.3  # share of faces that lose detail, and the least share of the resolution kept
GAP_WEIGHT = 1.0  # weight of errors of the gap, against those of a point
PEAK_RATE = 2e-3


class LipRegressor(nn.Module):
    """Locate the 20 lip points of faces (B, 3, 96, 96), BGR 0..1: (B, 20, 2) px."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.points = nn.Linear(CHANNELS[-1] * 2 * 3, 2 * N_LIPS)
        self.register_buffer("middle", torch.tensor([FACE_SIZE / 2, 0.7 * FACE_SIZE]))

    def forward(self, faces: Tensor) -> Tensor:
        """Return the lip points, px."""
        lower = faces[:, :, FIRST_ROW:]
        grey = lower.mean((1, 2, 3), keepdim=True)
        found = self.layers((lower - grey) / (lower.std((1, 2, 3), keepdim=True) + 1e-3)).flatten(1)
        offsets: Tensor = self.points(found).view(-1, N_LIPS, 2)
        return cast(Tensor, self.middle) + POINT_SCALE * offsets


def gap_of(points: Tensor) -> Tensor:
    """Return the gap between the inner lips (B,), px, of points (B, 20, 2)."""
    return points[:, INNER_BOTTOM, 1].mean(1) - points[:, INNER_TOP, 1].mean(1)


def change_gap(points: Tensor, change: Tensor) -> Tensor:
    """Return points (B, 20, 2) whose inner lips are further apart by a change (B,), px."""
    changed = points.clone()
    changed[:, INNER_TOP, 1] -= change[:, None] / 2
    changed[:, INNER_BOTTOM, 1] += change[:, None] / 2
    return changed


def point_error(found: Tensor, true: Tensor) -> Tensor:
    """Return the error of lip points (B, 20, 2), px, and of the gap between them."""
    points = functional.smooth_l1_loss(found, true)
    return points + GAP_WEIGHT * functional.smooth_l1_loss(gap_of(found), gap_of(true))


def draw_faces(clips: Sequence[PreparedClip], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw varied faces (B, 3, 96, 96) and their lips (B, 20, 2)."""
    faces: list[Bytes] = []
    lips: list[Floats] = []
    for _ in range(size):
        clip = clips[int(rng.integers(len(clips)))]
        frame, warp = int(rng.integers(clip.n_frames)), draw_warp(rng)
        face, points = warp_face(clip.faces[frame], warp), warp_points(clip.lips[frame], warp)
        if rng.random() < FACIAL_HAIR_SHARE:
            face = draw_facial_hair(rng).paint(face, points)
        if rng.random() < 0.5:
            (face,), points = mirror([face], points)
        (face,) = change_appearance([face], rng)
        if rng.random() < SOFT_SHARE:
            face = reduce_detail(face, round(FACE_SIZE * rng.uniform(SOFTEST, 1)))
        faces.append(face)
        lips.append(points)
    stacked = np.stack(faces).astype(np.float32).transpose(0, 3, 1, 2) / 255
    return torch.from_numpy(np.ascontiguousarray(stacked)), torch.from_numpy(np.stack(lips))


def train_lip_regressor(clips: Sequence[PreparedClip], steps: int, batch: int, seed: int) -> LipRegressor:
    """Train a regressor on the faces of clips; return it in inference mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = LipRegressor()
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    for step in range(steps):
        faces, lips = draw_faces(clips, batch, rng)
        set_learning_rate(optimiser, PEAK_RATE * learning_rate_at(step / steps))
        minimise(optimiser, point_error(network(faces), lips))
    return network.eval().requires_grad_(False)
