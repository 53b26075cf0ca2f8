"""Clips disguised as other people's, to read people who were never trained on.

Nearly all clips of the training set show one man. His mouth in the colours, in the place and about in the shape of
another's still says the same words.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from training.common.arrays import Bytes
from training.common.mouth_packs import CROP_HEIGHT, CROP_WIDTH
from training.lip_reading.augmentation import MouthSample
from training.lip_reading.splice import match_appearance

GRID_ROWS, GRID_COLUMNS = 3, 4  # of the points that are moved; what is between them follows smoothly
MOVED_PX = 3.0  # standard deviation of their shifts


def disguise(sample: MouthSample, other: MouthSample, rng: np.random.Generator) -> MouthSample:
    """Give a sample the colours and lip positions of another, and a mouth of another shape."""
    matched = match_appearance(sample, other)
    return replace(matched, frames=bend_frames(matched.frames, rng))


def bend_frames(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Shift parts of (T, 64, 128, 3) smoothly, all frames alike, by random distances."""
    shifts = rng.normal(0, MOVED_PX, (GRID_ROWS, GRID_COLUMNS, 2)).astype(np.float32)
    field = cv2.resize(shifts, (CROP_WIDTH, CROP_HEIGHT), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:CROP_HEIGHT, :CROP_WIDTH].astype(np.float32)
    from_x, from_y = cv2.convertMaps(columns + field[..., 0], rows + field[..., 1], cv2.CV_16SC2)
    bent = [cv2.remap(frame, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for frame in frames]
    return np.stack(bent).astype(np.uint8, copy=False)
