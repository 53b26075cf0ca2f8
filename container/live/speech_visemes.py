"""Visemes of speech that arrives as 16-bit samples at any rate."""

from __future__ import annotations

import numpy as np

from inference.audio import Resampler
from inference.errors import InvalidRequest
from inference.visemes import VisemeStream, VisemeUpdate
from inference.visemes.network import load_network

SAMPLE_BYTES = 2
MAX_CHUNK_S = 10.0  # of audio in one call, which takes about a second


class SpeechVisemes:
    """A stream of visemes from chunks of audio, in one thread at a time."""

    def __init__(self, rate: int) -> None:
        """Start a stream; the first one loads the network. Raises: InvalidRequest if the rate is not one of speech."""
        self.rate, self._resampler = rate, Resampler(rate)
        self._stream = VisemeStream(load_network())

    def push(self, chunk: bytes) -> VisemeUpdate:
        """Add audio, 16-bit little-endian mono. Raises: InvalidRequest for half a sample, or more than 10 s."""
        if len(chunk) % SAMPLE_BYTES:
            raise InvalidRequest(f"audio of {len(chunk)} bytes; expected whole samples of 16 bits")
        seconds = len(chunk) / SAMPLE_BYTES / self.rate
        if seconds > MAX_CHUNK_S:
            raise InvalidRequest(f"{seconds:.1f} s of audio in one message; expected at most {MAX_CHUNK_S:g} s")
        samples = np.frombuffer(chunk, "<i2").astype(np.int16, copy=False)
        return self._stream.push(self._resampler.push(samples))

    def finish(self) -> VisemeUpdate:
        """Return the rest, as if silence followed."""
        update = self._stream.push(self._resampler.finish())
        last = self._stream.finish()
        return VisemeUpdate(update.frames + last.frames, update.segments + last.segments)
