"""Blendshapes of ARKit that a mouth shape gives: 13 of its 52.

The speech encoder predicts how far the lips are open (0 closed, 1 the speaker's widest), how wide they are (in standard
deviations of the speaker's) and whether they touch as in b, m and p; the weights of the visemes tell apart what these
numbers leave open. docs/visemes.md has the formulas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inference.visemes.phonemes import OCULUS_VISEMES, SILENCE, Weights

# In the order of Apple's documentation of ARFaceAnchor.BlendShapeLocation.
BLENDSHAPES = (
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
)
WIDEST_JAW = 0.6  # of jawOpen at the widest opening of speech; a yawn is 1
NARROW, NARROW_RANGE = 0.3, 1.0  # deviations below the mean at which lips begin to count as narrow, and until all are
WIDTH_AT_REST = 0.4  # deviations; wider lips are stretched
LOWER_LIP, UPPER_LIP = 0.5, 0.25  # how far the lips follow the opening

Values = npt.NDArray[np.float32]  # (13,), 0..1


class MouthEstimate(NamedTuple):
    """opening: 0 closed, 1 widest, below 0 if pressed. width: deviations. contact: 0..1, of lips that touch."""

    opening: float
    width: float
    contact: float


def blendshapes_of(mouth: MouthEstimate, weights: Weights) -> Values:
    """Return the blendshapes of a mouth: (13,), in the order of BLENDSHAPES, 0..1. weights: of its visemes."""
    share = dict(zip(OCULUS_VISEMES, weights.tolist(), strict=True))
    opening, spoken = clip(mouth.opening), 1 - weights[SILENCE].item()
    jaw = WIDEST_JAW * opening
    narrow = clip((-mouth.width - NARROW) / NARROW_RANGE)
    rounded = clip(share["ou"] + 0.5 * share["oh"] + 0.5 * narrow * spoken)
    wide = 0.5 * clip(mouth.width - WIDTH_AT_REST) * spoken
    stretched = clip(wide + 0.4 * share["ih"] + 0.3 * share["SS"] + 0.2 * share["E"])
    pressed = clip(mouth.contact * (1 - opening))
    values = (
        jaw,
        jaw * mouth.contact,
        rounded * opening,
        rounded * (1 - opening),
        *(stretched,) * 2,
        share["FF"],
        *(pressed,) * 2,
        *(LOWER_LIP * opening,) * 2,
        *(UPPER_LIP * opening,) * 2,
    )
    return np.array([clip(one) for one in values], np.float32)


def clip(value: float) -> float:
    """Return the nearest number of 0..1."""
    return min(max(value, 0.0), 1.0)
