"""Error rates of a network under training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.lip_reading.evaluation import error_rate


@dataclass(frozen=True)
class ErrorRates:
    """Word and character error rates over all clips together, rounded to 4 digits."""

    wer: float
    cer: float


def measure_error_rates(pairs: Sequence[tuple[str, str]]) -> ErrorRates:
    """Compare texts. pairs: (reference, hypothesis)."""
    words = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    return ErrorRates(wer=round(error_rate(words), 4), cer=round(error_rate(pairs), 4))
