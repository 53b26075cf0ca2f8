"""Windows of the spectrogram for each frame of a video, as Wav2Lip takes them."""

from __future__ import annotations

import math

from inference.audio.mel import MEL_RATE, SAMPLE_RATE, Mel, Samples, mel_columns

MEL_WINDOW = 16  # columns, 0.2 s


def count_frames(n_samples: int, fps: float) -> int:
    """Return the number of frames nearest to the duration of the audio; at least 1."""
    return max(round(n_samples * fps / SAMPLE_RATE), 1)


def window_start(frame: int, fps: float, offset_frames: int = 0) -> int:
    """Return the first column of a frame's window; it may be before or after the audio.

    offset_frames: -1 as in Wav2Lip's training (the window of frame k starts at frame k - 1), 0 as in its inference.py.
    """
    return math.floor((frame + offset_frames) * (MEL_RATE / fps))


def cut_window(samples: Samples, start: int) -> Mel:
    """Compute the 16 columns from `start` on: (80, 16) float32; silence outside the audio."""
    return mel_columns(samples, start, start + MEL_WINDOW)


def upstream_window_starts(n_columns: int, fps: float) -> list[int]:
    """Return the windows that upstream cuts, which are too few: it stops at the first that would exceed the end.

    That last one ends with the audio; audio of under 16 columns gives one negative start, which here is a window with
    silence before it.
    Source: Rudrabha/Wav2Lip inference.py, the loop over mel_chunks.
    """
    starts: list[int] = []
    while (start := window_start(len(starts), fps)) + MEL_WINDOW <= n_columns:
        starts.append(start)
    return [*starts, n_columns - MEL_WINDOW]
