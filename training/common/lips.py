"""The 20 lip points of a face (48 to 67 of its 68 landmarks), and the gap between lips."""

from __future__ import annotations

import numpy as np

from training.common.arrays import Floats

# The points as a mirror shows them: outer lips 0..11 and inner lips 12..19, with left and right exchanged.
MIRRORED_LIPS = np.array([6, 5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 16, 15, 14, 13, 12, 19, 18, 17])
INNER_TOP, INNER_BOTTOM = [13, 14, 15], [19, 18, 17]  # the middle of the inner lips
MOUTH_CORNERS = (0, 6)


def landmark_gap(lips: Floats) -> Floats:
    """Return the vertical gap between the inner lips, in the unit of the points: (...,) of (..., 20, 2)."""
    return np.asarray((lips[..., INNER_BOTTOM, 1] - lips[..., INNER_TOP, 1]).mean(-1), np.float32)


def shape_gap(shapes: Floats) -> Floats:
    """Return the gap at which the renderer draws the lips: (...,) of rows of MouthShape, (..., 7)."""
    is_open, _, _, press, _, teeth, tongue = np.moveaxis(np.maximum(shapes, 0), -1, 0)
    gap = (is_open**4 + (0.34 * teeth) ** 4 + (0.5 * tongue) ** 4) ** 0.25
    return np.asarray(gap * (1 - np.minimum(press, 1)), np.float32)


def measure_shapes(lips: Floats) -> Floats:
    """Return (T, 3) px of a clip's (T, 20, 2): the gap between the lips, and height and width less their means.

    Lips differ between people by more than speech predicts; their movements while talking are alike.
    """
    height, width = lips[:, 9, 1] - lips[:, 3, 1], lips[:, 6, 0] - lips[:, 0, 0]
    return np.stack([landmark_gap(lips), height - height.mean(), width - width.mean()], axis=1).astype(np.float32)
