"""Windows of the spectrogram for each frame of an avatar, 25 frames a second.

A window has 16 columns; window k starts at column 3.2 k, rounded down. Its encoding is a row of features; the input of
each frame is 16 rows. How far the last of them is ahead of the frame belongs to the weights: six windows in published
avatars.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.audio.mel import HOP, N_FFT, PRE_EMPHASIS_REACH, SAMPLE_RATE, Mel, Samples, compute_unpadded_mel
from inference.audio.wav2lip_windows import MEL_WINDOW

AVATAR_FPS = 25
FEATURE_ROWS = 16  # rows of features in a frame's input
ROWS_BEFORE = FEATURE_ROWS // 2  # of them before the frame
# Row j is window j - 1: upstream repeats the features of the first and of the last window.
FIRST_WINDOW = -ROWS_BEFORE - 1  # of frame i's input, counted from window i
LAST_WINDOW = FIRST_WINDOW + FEATURE_ROWS - 1  # 6: the look-ahead of published avatars, in windows

Features = npt.NDArray[np.float32]  # (rows, features)


def avatar_window_start(k: int) -> int:
    """Return the first column of window k; negative before the audio."""
    return k * 16 // 5  # 80 columns a second / 25 frames a second


def sample_range_of_window(k: int) -> tuple[int, int]:
    """Return the range of samples that window k depends on: the first, and one past the last."""
    start = avatar_window_start(k)
    low, high = start * HOP - N_FFT // 2, (start + MEL_WINDOW - 1) * HOP + N_FFT // 2
    return low - PRE_EMPHASIS_REACH, high


def mel_of_window(samples: Samples) -> Mel:
    """Compute one window from just the 3,801 samples that it depends on: (80, 16) float32.

    The result depends neither on the window's position nor on how the audio was split into chunks.
    """
    return compute_unpadded_mel(samples)


def windows_of_frame(frame: int, look_ahead: int = LAST_WINDOW) -> range:
    """Return the 16 windows of a frame's input. look_ahead: the last of them, counted from window `frame`."""
    return range(frame + look_ahead - FEATURE_ROWS + 1, frame + look_ahead + 1)


def look_ahead_ms(look_ahead: int = LAST_WINDOW) -> float:
    """Return the time from a frame's start to the end of its input, at most: less if a start is rounded down."""
    window_s = (MEL_WINDOW - 1) * HOP / SAMPLE_RATE + N_FFT / 2 / SAMPLE_RATE
    return 1000 * (look_ahead / AVATAR_FPS + window_s)


def rows_of_frame(features: Features, frame: int) -> Features:
    """Return the 16 rows around a frame, zeros outside the audio: (16, features).

    Source: SyncTalk_2D utils.py get_audio_features.
    """
    rows = np.zeros((FEATURE_ROWS, features.shape[1]), np.float32)
    first, last = max(frame - ROWS_BEFORE, 0), min(frame + ROWS_BEFORE, len(features))
    if first < last:
        at = first - (frame - ROWS_BEFORE)
        rows[at : at + last - first] = features[first:last]
    return rows
