"""Mixing stereo to mono without losing what cancels: a channel that is wired the wrong way round is inverted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

# The sum has less than this share of the energy of the difference: 13 dB. Of unrelated channels, both have the same.
CANCELLED_SHARE = 0.05


class StereoBalance:
    """Measures the energy of the sum and of the difference of two channels."""

    def __init__(self) -> None:
        self._of_sum = self._of_difference = 0.0

    def add(self, samples: Samples) -> None:
        """Count samples: (n, 2) int16."""
        left, right = samples[:, 0].astype(np.float32), samples[:, 1].astype(np.float32)
        self._of_sum += energy_of(left + right)
        self._of_difference += energy_of(left - right)

    @property
    def is_cancelled(self) -> bool:
        """Whether the channels cancel each other in the sum: one is the other inverted."""
        return self._of_sum < CANCELLED_SHARE * self._of_difference


def energy_of(samples: npt.NDArray[np.float32]) -> float:
    return float(np.dot(samples, samples))


def mix_difference(samples: Samples) -> Samples:
    """Mix (n, 2) int16 to (n, 1), with the right channel inverted."""
    difference = (samples[:, :1].astype(np.int32) - samples[:, 1:]) >> 1
    return np.asarray(np.clip(difference, -32768, 32767), np.int16)
