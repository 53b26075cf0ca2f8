"""Which windows of the spectrogram an avatar's frame hears, 25 frames a second.

A window is 16 columns; window k begins at column 3.2 k, rounded down. Its encoding is a row of features; each frame
hears 16 rows, eight on either side of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.audio.mel import HOP, N_FFT, PRE_EMPHASIS_REACH, Mel, Padding, Samples, compute_mel, mel_of
from inference.audio.windows import WINDOW

FPS = 25
ROWS = 16  # of features that a frame hears
REACH = ROWS // 2
# Row j is window j - 1: upstream repeats the first window's features before all, and the last one's behind.
FIRST_WINDOW = -REACH - 1  # of those that frame i hears, counted from window i
LAST_WINDOW = FIRST_WINDOW + ROWS - 1
# What a frame hears reaches so far behind its start, at most: 4 frames in, say, where nothing is rounded down.
LOOK_AHEAD_MS = 452.5
UPSTREAM_PADDING: Padding = "zeros"

Features = npt.NDArray[np.float32]  # (rows, numbers)


def window_start(k: int) -> int:
    """The first column of window k; negative before the sound."""
    return k * 16 // 5  # 80 columns a second over 25 frames


def reach_of_window(k: int) -> tuple[int, int]:
    """The samples that window k hears: the first, and the one behind the last."""
    start = window_start(k)
    low, high = start * HOP - N_FFT // 2, (start + WINDOW - 1) * HOP + N_FFT // 2
    return low - PRE_EMPHASIS_REACH, high


def mel_of_window(samples: Samples) -> Mel:
    """(80, 16) float32 of just the samples that a window hears, 3,801 of them.

    The same numbers come out wherever the window lies and however the sound came in.
    """
    return mel_of(samples)


def windows_of_frame(frame: int) -> range:
    """The 16 windows that a frame hears."""
    return range(frame + FIRST_WINDOW, frame + LAST_WINDOW + 1)


def count_upstream_windows(n_columns: int) -> int:
    """How many windows upstream cuts, none where it would be below. Source: SyncTalk_2D utils.py AudDataset."""
    return max(int((n_columns - WINDOW) / 80 * FPS) + 2, 0)


def upstream_window_starts(n_columns: int) -> list[int]:
    """Where upstream's windows begin; the last ones are pulled back to end with the sound."""
    return [min(window_start(k), n_columns - WINDOW) for k in range(count_upstream_windows(n_columns))]


def upstream_windows(samples: Samples) -> npt.NDArray[np.float32]:
    """What upstream hears of a whole file: (windows, 80, 16) float32.

    Raises: ValueError for less than 3,000 samples, which fill no window; upstream fails on them, too.
    """
    mel = compute_mel(samples, UPSTREAM_PADDING)
    n_columns = mel.shape[1]
    if n_columns < WINDOW:
        raise ValueError(f"{len(samples)} samples fill no window; expected {(WINDOW - 1) * HOP} at least")
    return np.stack([mel[:, start : start + WINDOW] for start in upstream_window_starts(n_columns)])


def repeat_ends(features: Features) -> Features:
    """Upstream's rows of a file: its windows' features, the first and the last of them twice."""
    return np.concatenate([features[:1], features, features[-1:]])


def rows_of_frame(features: Features, frame: int) -> Features:
    """The 16 rows around a frame, zeros where there are none: (16, numbers).

    Source: SyncTalk_2D utils.py get_audio_features.
    """
    rows = np.zeros((ROWS, features.shape[1]), np.float32)
    first, last = max(frame - REACH, 0), min(frame + REACH, len(features))
    if first < last:
        at = first - (frame - REACH)
        rows[at : at + last - first] = features[first:last]
    return rows
