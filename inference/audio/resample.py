"""Streaming resampling, by default to 16 kHz; the result does not depend on how the audio is split into chunks.

Libraries were measured instead. soxr.ResampleStream holds back 20 to 115 ms of audio, this 0.8 to 1.5 ms, and its
result depends on the chunks unless it computes in floats. FFmpeg's resampler (PyAV) loses or adds a sample at the end,
and lets through twice as much of what 16 kHz cannot represent.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inference.audio.mel import SAMPLE_RATE, Samples
from inference.audio.sample_buffer import SampleBuffer
from inference.errors import InvalidRequest

LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000
ZERO_CROSSINGS = 12  # of the sinc on either side
KAISER_BETA = 8.0  # window parameter: aliases are 80 dB below
PASSBAND = 0.92  # share of the lower rate's band; the rest is the transition band
BLOCK_SAMPLES = 4096  # output computed at a time, so that memory does not grow with the chunks


class Resampler:
    """Converts a stream of int16 samples at `rate` to `target`; output m is the audio at m / target s."""

    def __init__(self, rate: int, target: int = SAMPLE_RATE) -> None:
        """Start a stream. Raises: InvalidRequest if a rate is not one of speech."""
        for one in (rate, target):
            if isinstance(one, bool) or not isinstance(one, int) or not LOWEST_RATE <= one <= HIGHEST_RATE:
                raise InvalidRequest(f"sample rate {one!r}: expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second")
        self.rate, self.target = rate, target
        divisor = math.gcd(rate, target)
        self._up, self._down = target // divisor, rate // divisor
        self._reach = reach_of(rate, target)
        self._input = SampleBuffer()
        self._n_out = 0

    def push(self, samples: Samples) -> Samples:
        """Append samples, and return the output that they complete: (m,) int16."""
        if self.rate == self.target:
            self._n_out += len(samples)
            return samples
        self._input.append(samples)
        # Output m depends on inputs up to m * down // up + reach.
        n_complete = max(self._input.end - self._reach, 0)
        return self._emit(-(-n_complete * self._up // self._down))

    def finish(self) -> Samples:
        """Return the rest, as if silence followed: the total is the number of samples nearest to the duration."""
        if self.rate == self.target:
            return np.zeros(0, np.int16)
        return self._emit(round(self._input.end * self._up / self._down))

    def _emit(self, until: int) -> Samples:
        blocks = [np.zeros(0, np.int16)]
        while self._n_out < until:
            blocks.append(self._filter(self._n_out, min(until, self._n_out + BLOCK_SAMPLES)))
            self._n_out += len(blocks[-1])
        return np.concatenate(blocks)

    def _filter(self, first: int, last: int) -> Samples:
        reach, filters = self._reach, design_filters(self.rate, self.target, self._up)
        at = np.arange(first, last) * self._down
        positions, phases = at // self._up, at % self._up
        low = int(positions[0]) - reach + 1
        samples = self._input.read(low, int(positions[-1]) + reach + 1)
        windows = np.lib.stride_tricks.sliding_window_view(samples, 2 * reach)[positions - positions[0]]
        filtered = (windows * filters[phases]).sum(axis=1)
        self._input.discard_before(int(positions[-1]) - reach + 1)
        return np.asarray(np.rint(np.clip(filtered, -32768, 32767)), np.int16)


def reach_of(rate: int, target: int) -> int:
    """Return the number of input samples on either side that an output depends on."""
    return math.ceil(ZERO_CROSSINGS * max(rate / target, 1))


@lru_cache(maxsize=4)
def design_filters(rate: int, target: int, n_phases: int) -> npt.NDArray[np.float64]:
    """Return the filter for each position between two input samples: (phases, 2 * reach), each with sum 1."""
    reach = reach_of(rate, target)
    band = PASSBAND * min(target / rate, 1)
    taps = np.arange(-reach + 1, reach + 1)
    t = np.arange(n_phases)[:, None] / n_phases - taps
    window = np.i0(KAISER_BETA * np.sqrt(np.maximum(1 - (t / reach) ** 2, 0))) / np.i0(KAISER_BETA)
    filters = np.sinc(t * band) * window
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))
