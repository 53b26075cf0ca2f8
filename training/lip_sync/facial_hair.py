"""Moustaches and beards painted onto training faces, as few of the people who were filmed have any.

Facial hair frames the lips and hides their outline. A network that never saw it draws a mouth that hardly moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.arrays import Bytes, Floats

N_OUTER = 12  # of the 20 lip points: the outline of the lips
# Bounds of the growth, in widths and heights of the mouth, from its middle.
WIDTHS, ABOVE, BELOW = (1.05, 1.5), (1.1, 2.2), (1.2, 3.2)
DARKNESS = (0.12, 0.7)  # of the hair against the skin around the mouth
OPACITY = (0.45, 0.97)
GREY_SHARE = 0.15  # share of grey or fair hair
TEXTURE = 0.25  # largest darkening of single hairs
FACIAL_HAIR_SHARE = 0.35  # share of samples that get a moustache or a beard
SOFT_PX = 1.2  # sigma of the edges
SUBPIXEL_BITS = 3


@dataclass(frozen=True)
class FacialHair:
    """Hair around a mouth, the same in all frames of a person.

    width, above, below: how far it grows, in half widths and half heights of the lips from their middle; above and
    below are 0 if it does not grow there. tint: (3,) factors of the skin's colour, BGR. texture: (96, 96) of opacity.
    """

    width: float
    above: float
    below: float
    tint: Floats
    texture: Floats

    def paint(self, face: Bytes, lips: Floats) -> Bytes:
        """Paint the hair onto a face (96, 96, 3) around its lips (20, 2), px."""
        region = self.region(lips[:N_OUTER])
        weight = cv2.GaussianBlur(region, (0, 0), SOFT_PX) * self.texture
        if not region.any():  # the lips cover it, or are outside the image
            return face
        skin = face[region > 0].mean(0)
        changed = face + weight[..., None] * (skin * self.tint - face)
        return np.asarray(np.clip(changed, 0, 255), np.uint8)

    def region(self, outline: Floats) -> Floats:
        """Return where hair grows: (96, 96), 0 or 1. outline: (12, 2) px of the lips."""
        low, high = outline.min(0), outline.max(0)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 2.0)
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        across, down = np.cos(angles), np.sin(angles)  # y points down
        reach = np.where(down < 0, np.maximum(self.above, 0.3), np.maximum(self.below, 0.3)) * max(half[1], half[0] / 3)
        grown = np.column_stack([middle[0] + across * self.width * half[0], middle[1] + down * reach])
        mask = fill(grown) - fill(outline)
        rows = np.arange(FACE_SIZE)
        if self.above == 0:
            mask[rows < middle[1]] = 0
        if self.below == 0:
            mask[rows > middle[1]] = 0
        return np.asarray(np.clip(mask, 0, 1), np.float32)


def fill(polygon: Floats) -> Floats:
    """Return a filled polygon (N, 2) px: (96, 96) of 0 and 1."""
    mask = np.zeros((FACE_SIZE, FACE_SIZE), np.uint8)
    cv2.fillPoly(mask, [np.rint(polygon * 2**SUBPIXEL_BITS).astype(np.int32)], 1, shift=SUBPIXEL_BITS)
    return mask.astype(np.float32)


def draw_facial_hair(rng: np.random.Generator) -> FacialHair:
    """Draw a moustache, a beard, or both."""
    kind = rng.choice(["moustache", "beard", "both"], p=[0.35, 0.15, 0.5])
    darkness = rng.uniform(*DARKNESS) if rng.random() > GREY_SHARE else rng.uniform(0.8, 1.2)
    tint = darkness * rng.uniform(0.8, 1.2, 3)
    hairs = rng.uniform(1 - TEXTURE, 1, (FACE_SIZE, FACE_SIZE)).astype(np.float32)
    texture = np.asarray(cv2.GaussianBlur(hairs, (0, 0), 0.7) * rng.uniform(*OPACITY), np.float32)
    return FacialHair(
        float(rng.uniform(*WIDTHS)),
        0.0 if kind == "beard" else float(rng.uniform(*ABOVE)),
        0.0 if kind == "moustache" else float(rng.uniform(*BELOW)),
        tint.astype(np.float32),
        texture,
    )
