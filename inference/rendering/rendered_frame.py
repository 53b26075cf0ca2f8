"""A rendered frame with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from inference.rendering.mouth_shape import MouthShape

Frame = npt.NDArray[np.uint8]  # (H, W, 3) BGR
Landmarks = npt.NDArray[np.float32]  # (68, 2) px

NOISE_STREAM = 3  # seeds the camera noise apart from every other random draw


@dataclass(frozen=True)
class RenderedFrame:
    """A rendered frame and its ground truth.

    frame: (H, W, 3) uint8 BGR. landmarks: (68, 2) float32 px of each person, the speaker first; empty if the frame
    shows no person. mouth: the speaker's.
    """

    at_s: Fraction
    frame: Frame
    landmarks: tuple[Landmarks, ...]
    mouth: MouthShape
