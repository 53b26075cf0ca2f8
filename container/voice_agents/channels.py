"""Channels of an agent's audio."""

from __future__ import annotations

import numpy as np

from inference.audio.mel import Samples


def mix_channels(audio: bytes | memoryview, n_channels: int) -> Samples:
    """Return the mean of the channels of interleaved 16-bit audio: (n,) int16."""
    samples = np.frombuffer(audio, np.int16).reshape(-1, n_channels)
    if n_channels == 1:
        return samples[:, 0].copy()
    return np.asarray(np.rint(samples.mean(axis=1)), np.int16)
