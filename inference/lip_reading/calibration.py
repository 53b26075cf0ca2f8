"""Calibration of one checkpoint: confidence of its words, and the delay of its word boundaries.

`python -m bench.calibration` measures the constants and writes them into the card of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

N_BOUNDARIES = 7  # boundaries per sentence: the starts of its six words, and its end
POSTERIOR_FLOOR = 1e-4  # posteriors are clipped to this distance from 0 and 1


@dataclass(frozen=True)
class Calibration:
    """Calibration constants of one checkpoint.

    bias, posterior, agreement: log odds that a word is right = bias + posterior x the log odds that the lattice
    gives it + agreement x the agreement of its sentence with unconstrained decoding (nats; 0 is full agreement).
    shift_s: offset of the alignment from each boundary of a sentence, seconds. spread_s: its standard deviation.
    """

    bias: float = 0.0
    posterior: float = 0.5
    agreement: float = 0.2
    shift_s: tuple[float, ...] = (0.0,) * N_BOUNDARIES
    spread_s: tuple[float, ...] = (0.08,) * N_BOUNDARIES

    def __post_init__(self) -> None:
        assert len(self.shift_s) == len(self.spread_s) == N_BOUNDARIES

    def confidence(self, posterior: float, agreement: float) -> float:
        """Return the probability that a word is right, 0..1."""
        return float(1 / (1 + np.exp(-(self.bias + self.posterior * log_odds(posterior) + self.agreement * agreement))))


def log_odds(posterior: float) -> float:
    """Return the log odds of a probability, which is clipped by POSTERIOR_FLOOR."""
    p = min(max(posterior, POSTERIOR_FLOOR), 1 - POSTERIOR_FLOOR)
    return float(np.log(p / (1 - p)))


def read_calibration(card: dict[str, Any], sha256: str) -> Calibration:
    """Return the constants in a card if they were measured with these very weights.

    Otherwise return defaults that give half weight to the posterior.
    """
    measured = card.get("calibration")
    if measured is None or measured["sha256"] != sha256:
        return Calibration()
    return Calibration(
        measured["bias"],
        measured["posterior"],
        measured["agreement"],
        tuple(measured["shift_s"]),
        tuple(measured["spread_s"]),
    )
