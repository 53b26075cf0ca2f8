"""When the words of a sentence were said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.decode import decode_greedy, split_words
from inference.lip_reading.lattice import Floats, best_path, build_lattice

# Seconds that the word of each slot lasts in GRID, and the standard deviation: over the 38 clips of eight
# speakers whose alignments are at hand (`python -m bench.calibration` prints them).
DURATION_S = (0.333, 0.242, 0.141, 0.202, 0.333, 0.422)
DURATION_SPREAD_S = (0.093, 0.061, 0.058, 0.045, 0.093, 0.095)
LEAST_SPREAD_S = 0.03  # an alignment is never surer than three quarters of a frame


def align(log_p: Floats, said: Sequence[str], fps: float) -> Floats:
    """(n_words + 1,) seconds: the first character of each word on its best path, and the end of the last.

    log_p: (T, 28) of the sentence alone.
    """
    lattice = build_lattice(tuple((word,) for word in said), once=True)
    words = list(split_words(decode_greedy(lattice.labels[best_path(lattice, log_p)])))
    return np.array([*(letters[0].first for letters in words), words[-1][-1].last + 1]) / fps


def place_words(log_p: Floats, said: Sequence[str], fps: float, calibration: Calibration) -> list[tuple[float, float]]:
    """Start and end of each word in seconds from the first frame; one begins where the one before ends.

    CTC need not say a character when the mouth does: these networks tell the first three words, which they
    recognise from all that follows, at the start of a window. So an alignment is an observation of the
    boundary, late or early by the checkpoint's own shift and sure to its spread; with it goes what words
    last in GRID. Both Gaussian, the most probable boundaries solve a small system of linear equations.
    """
    observed = align(log_p, said, fps) - np.array(calibration.shift_s)
    trust = 1 / np.maximum(calibration.spread_s, LEAST_SPREAD_S)
    steps = np.diff(np.eye(len(observed)), axis=0) / np.array(DURATION_SPREAD_S)[:, None]
    wanted = np.concatenate([observed * trust, np.divide(DURATION_S, DURATION_SPREAD_S)])
    boundaries, *_ = np.linalg.lstsq(np.concatenate([np.diag(trust), steps]), wanted, rcond=None)
    kept = keep_order(boundaries, len(log_p) / fps, 1 / fps)
    return list(zip(kept[:-1].tolist(), kept[1:].tolist(), strict=True))


def keep_order(boundaries: Floats, length_s: float, frame_s: float) -> Floats:
    """The same, at least a frame apart, within 0 and `length_s`."""
    steps = np.arange(len(boundaries)) * frame_s
    rising = np.maximum.accumulate(np.maximum(boundaries - steps, 0))
    kept: Floats = np.minimum(rising, max(length_s - steps[-1], 0)) + steps
    return kept
