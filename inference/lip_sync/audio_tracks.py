"""Audio tracks of another length than the audio they are made of."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from inference.media.audio_convert import Samples
from inference.media.encode import AudioTrack


class FittedTrack:
    """An audio track of a given length: cut, or padded with silence at its end. Its length is in samples."""

    def __init__(self, track: AudioTrack, n_samples: int) -> None:
        self.rate, self.n_channels = track.rate, track.n_channels
        self._track, self._n_samples = track, n_samples

    def __len__(self) -> int:
        return self._n_samples

    def read(self, start: int, end: int) -> Samples:
        """Return samples start..end-1: (n, channels) int16."""
        end = min(end, self._n_samples)
        n_samples = max(end - start, 0)
        stored = self._track.read(start, min(end, len(self._track))) if start < len(self._track) else None
        if stored is not None and len(stored) == n_samples:
            return stored
        padded = np.zeros((n_samples, self.n_channels), np.int16)
        if stored is not None:
            padded[: len(stored)] = stored
        return padded


def fit_audio(track: AudioTrack, duration_s: Fraction) -> FittedTrack:
    """Cut or pad a track to a duration, to the nearest sample."""
    return FittedTrack(track, round(duration_s * track.rate))
