"""Sound that comes in pieces, read by place, and forgotten from the front."""

from __future__ import annotations

import numpy as np

from inference.audio.mel import Samples

SAMPLE_BYTES = 2


class Tape:
    """Samples 0..end-1, of which the oldest may be gone. Around them there is silence."""

    def __init__(self) -> None:
        self.end = 0  # samples that came
        self._first = 0  # that is still kept
        self._kept = bytearray()

    def append(self, samples: Samples) -> None:
        """samples: (n,) int16, copied."""
        self._kept += np.ascontiguousarray(samples, np.int16).tobytes()
        self.end += len(samples)

    def read(self, first: int, last: int) -> Samples:
        """Samples first..last-1, zeros before the first that ever came and behind the last: (last - first,) int16.

        Raises: ValueError for those that were forgotten.
        """
        low, high = max(first, 0), min(last, self.end)
        if low < high and low < self._first:
            raise ValueError(f"samples from {low} on were asked for; those before {self._first} are forgotten")
        out = np.zeros(last - first, np.int16)
        if low < high:
            kept = self._kept[(low - self._first) * SAMPLE_BYTES : (high - self._first) * SAMPLE_BYTES]
            out[low - first : high - first] = np.frombuffer(kept, np.int16)
        return out

    def forget(self, before: int) -> None:
        """Give up the samples before that one."""
        n_gone = min(before, self.end) - self._first
        if n_gone > 0:
            del self._kept[: n_gone * SAMPLE_BYTES]
            self._first += n_gone
