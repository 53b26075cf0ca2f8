"""What was measured of a checkpoint's outputs: how far they may be trusted, and how late they say a word.

`python -m bench.calibration` measures it and writes it into the card of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

N_BOUNDARIES = 7  # of a sentence: the starts of its six words, and its end
LEAST_POSTERIOR = 1e-4  # posteriors nearer to 0 or 1 than this are worth no more


@dataclass(frozen=True)
class Calibration:
    """Constants of one checkpoint.

    bias, posterior, agreement: log odds that a word is right = bias + posterior x the log odds that the lattice
    gives it + agreement x how much its sentence agrees with free decoding (nats, 0 for wholly).
    shift_s: how far from each boundary of a sentence the alignment lies. spread_s: its standard deviation.
    """

    bias: float = 0.0
    posterior: float = 0.5
    agreement: float = 0.2
    shift_s: tuple[float, ...] = (0.0,) * N_BOUNDARIES
    spread_s: tuple[float, ...] = (0.08,) * N_BOUNDARIES

    def __post_init__(self) -> None:
        assert len(self.shift_s) == len(self.spread_s) == N_BOUNDARIES

    def confidence(self, posterior: float, agreement: float) -> float:
        """The probability that a word is right."""
        return float(1 / (1 + np.exp(-(self.bias + self.posterior * log_odds(posterior) + self.agreement * agreement))))


def log_odds(posterior: float) -> float:
    p = min(max(posterior, LEAST_POSTERIOR), 1 - LEAST_POSTERIOR)
    return float(np.log(p / (1 - p)))


def from_card(card: dict[str, Any], sha256: str) -> Calibration:
    """The constants in a card, where they were measured with these very weights; else those of a network
    whose outputs are taken at half their word.
    """
    found = card.get("calibration")
    if found is None or found["sha256"] != sha256:
        return Calibration()
    return Calibration(
        found["bias"], found["posterior"], found["agreement"], tuple(found["shift_s"]), tuple(found["spread_s"])
    )
