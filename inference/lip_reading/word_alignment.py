"""Start and end times of the words of a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.greedy_decoder import decode_greedy, split_words
from inference.lip_reading.lattice import Floats, build_lattice, find_best_path

# Duration of the word of each slot in GRID, in seconds, and its standard deviation: over the 38 clips of eight
# speakers with alignments (`python -m bench.calibration` prints them).
WORD_DURATION_S = (0.333, 0.242, 0.141, 0.202, 0.333, 0.422)
WORD_DURATION_STD_S = (0.093, 0.061, 0.058, 0.045, 0.093, 0.095)
MIN_STD_S = 0.03  # an alignment is never more precise than three quarters of a frame


def find_word_boundaries(log_p: Floats, words: Sequence[str], fps: float) -> Floats:
    """Align words to frames: the first character of each word on its best path, and the end of the last word.

    log_p: (T, 28) of the sentence alone.
    Returns: (n_words + 1,) seconds from the first frame.
    """
    lattice = build_lattice(tuple((word,) for word in words), exactly_one=True)
    spelled = list(split_words(decode_greedy(lattice.labels[find_best_path(lattice, log_p)])))
    return np.array([*(letters[0].first for letters in spelled), spelled[-1][-1].last + 1]) / fps


def estimate_word_times(
    log_p: Floats, words: Sequence[str], fps: float, calibration: Calibration
) -> list[tuple[float, float]]:
    """Estimate the start and end of each word, in seconds from the first frame.

    A word begins at the end of the one before. CTC may emit a character at another time than the mouth says it: these
    networks emit the first three words, which they recognise from all that follows, at the start of a window. So an
    alignment is one observation of the boundaries, shifted by the checkpoint's own offset and as precise as its spread;
    the word durations in GRID are a second one. Both are Gaussian, so the most probable boundaries solve a small linear
    least-squares problem.
    """
    observed = find_word_boundaries(log_p, words, fps) - np.array(calibration.shift_s)
    precision = 1 / np.maximum(calibration.spread_s, MIN_STD_S)
    differences = np.diff(np.eye(len(observed)), axis=0) / np.array(WORD_DURATION_STD_S)[:, None]
    targets = np.concatenate([observed * precision, np.divide(WORD_DURATION_S, WORD_DURATION_STD_S)])
    boundaries, *_ = np.linalg.lstsq(np.concatenate([np.diag(precision), differences]), targets, rcond=None)
    ordered = enforce_order(boundaries, len(log_p) / fps, 1 / fps)
    return list(zip(ordered[:-1].tolist(), ordered[1:].tolist(), strict=True))


def enforce_order(boundaries: Floats, length_s: float, frame_s: float) -> Floats:
    """Return the boundaries in order, at least one frame apart, within 0 and `length_s`."""
    differences = np.arange(len(boundaries)) * frame_s
    increasing = np.maximum.accumulate(np.maximum(boundaries - differences, 0))
    ordered: Floats = np.minimum(increasing, max(length_s - differences[-1], 0)) + differences
    return ordered
