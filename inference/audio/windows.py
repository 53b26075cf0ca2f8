"""Which stretch of the spectrogram belongs to which frame of a video."""

from __future__ import annotations

import math

from inference.audio.mel import MEL_RATE, SAMPLE_RATE, Mel, Samples, mel_columns

WINDOW = 16  # columns, 0.2 s


def count_frames(n_samples: int, fps: float) -> int:
    """How many frames last as long as the sound, to the nearest; 1 at least."""
    return max(round(n_samples * fps / SAMPLE_RATE), 1)


def window_start(frame: int, fps: float, offset_frames: int = 0) -> int:
    """The first column of a frame's window; it may lie before the sound, or behind it.

    offset_frames: -1 is how Wav2Lip was trained (frame k heard from frame k - 1 on), 0 how its
    inference.py calls it.
    """
    return math.floor((frame + offset_frames) * (MEL_RATE / fps))


def cut_window(samples: Samples, start: int) -> Mel:
    """The 16 columns from `start` on: (80, 16) float32; silence stands where there is no sound."""
    return mel_columns(samples, start, start + WINDOW)


def upstream_starts(n_columns: int, fps: float) -> list[int]:
    """The windows that upstream cuts, which are too few: it stops at the first that would reach over the end.

    That last one ends with the sound; sound of under 16 columns gives one negative start, which here
    is a window with silence before it.
    Source: Rudrabha/Wav2Lip inference.py, the loop over mel_chunks.
    """
    starts: list[int] = []
    while (start := window_start(len(starts), fps)) + WINDOW <= n_columns:
        starts.append(start)
    return [*starts, n_columns - WINDOW]
