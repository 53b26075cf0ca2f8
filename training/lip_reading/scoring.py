"""Error rates of a network under training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Greedy error rates: edits / reference length, over all clips together."""

    wer: float
    cer: float


def score_texts(pairs: Sequence[tuple[str, str]]) -> Score:
    """pairs: what was said, and what was read."""
    return Score(
        wer=error_rate([(said.split(), read.split()) for said, read in pairs]),
        cer=error_rate([(list(said), list(read)) for said, read in pairs]),
    )


def error_rate(pairs: Sequence[tuple[list[str], list[str]]]) -> float:
    """Edits / length of what was said, over all pairs of (said, read)."""
    return round(sum(n_edits(said, read) for said, read in pairs) / max(1, sum(len(said) for said, _ in pairs)), 4)


def n_edits(said: list[str], read: list[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(read) + 1))
    for i, expected in enumerate(said, 1):
        above, row = row, [i]
        for j, found in enumerate(read, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (expected != found)))
    return row[-1]
