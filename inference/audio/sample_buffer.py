"""A buffer of streamed audio, read by position and discarded from the front."""

from __future__ import annotations

import numpy as np

from inference.audio.mel import Samples

SAMPLE_BYTES = 2


class SampleBuffer:
    """Samples 0..end-1, of which the oldest may be discarded. Before and after them there is silence."""

    def __init__(self) -> None:
        self.end = 0  # samples appended so far
        self._first = 0  # oldest sample still held
        self._bytes = bytearray()

    def append(self, samples: Samples) -> None:
        """Append (n,) int16; they are copied."""
        self._bytes += np.ascontiguousarray(samples, np.int16).tobytes()
        self.end += len(samples)

    def read(self, first: int, last: int) -> Samples:
        """Return samples first..last-1, zeros before sample 0 and from `end` on: (last - first,) int16.

        Raises: ValueError if they were discarded.
        """
        low, high = max(first, 0), min(last, self.end)
        if low < high and low < self._first:
            raise ValueError(f"samples from {low} on requested; those before {self._first} were discarded")
        out = np.zeros(last - first, np.int16)
        if low < high:
            held = self._bytes[(low - self._first) * SAMPLE_BYTES : (high - self._first) * SAMPLE_BYTES]
            out[low - first : high - first] = np.frombuffer(held, np.int16)
        return out

    def discard_before(self, index: int) -> None:
        """Discard the samples before `index`."""
        n_discarded = min(index, self.end) - self._first
        if n_discarded > 0:
            del self._bytes[: n_discarded * SAMPLE_BYTES]
            self._first += n_discarded
