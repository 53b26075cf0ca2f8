"""Sound of any rate as sound of 16 kHz, while it comes in: the pieces that it comes in make no difference."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inference.audio.mel import SAMPLE_RATE, Samples
from inference.audio.tape import Tape
from inference.errors import InvalidRequest

LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000
CROSSINGS = 12  # zeros of the sinc on either side
BETA = 8.0  # of the Kaiser window: what is folded back lies 80 dB below
PASSED = 0.92  # of the lower of both rates' bands; the filter falls off in what is left
BLOCK = 4096  # samples at a time, so that memory does not grow with the pieces


class Resampler:
    """A stream of int16 samples at `rate` to one at 16 kHz; sample m lies at m / 16000 s of the sound."""

    def __init__(self, rate: int) -> None:
        """Raises: InvalidRequest for a rate that no speech comes at."""
        if isinstance(rate, bool) or not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise InvalidRequest(f"sample rate {rate!r}: expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second")
        self.rate = rate
        divisor = math.gcd(rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, rate // divisor
        self._tape = Tape()
        self._n_out = 0

    def push(self, samples: Samples) -> Samples:
        """What is settled by now and was not given yet: (m,) int16."""
        if self.rate == SAMPLE_RATE:
            self._n_out += len(samples)
            return samples
        self._tape.append(samples)
        # Output m hears inputs up to m * down // up + half.
        n_settled = max(self._tape.end - reach_of(self.rate), 0)
        return self._give(-(-n_settled * self._up // self._down))

    def finish(self) -> Samples:
        """The rest: silence follows. All in all there are as many as fill the time, to the nearest."""
        if self.rate == SAMPLE_RATE:
            return np.zeros(0, np.int16)
        return self._give(round(self._tape.end * self._up / self._down))

    def _give(self, until: int) -> Samples:
        pieces = [np.zeros(0, np.int16)]
        while self._n_out < until:
            pieces.append(self._make(self._n_out, min(until, self._n_out + BLOCK)))
            self._n_out += len(pieces[-1])
        return np.concatenate(pieces)

    def _make(self, first: int, last: int) -> Samples:
        reach, filters = reach_of(self.rate), design(self.rate, self._up)
        at = np.arange(first, last) * self._down
        places, phases = at // self._up, at % self._up
        low = int(places[0]) - reach + 1
        heard = self._tape.read(low, int(places[-1]) + reach + 1)
        windows = np.lib.stride_tricks.sliding_window_view(heard, 2 * reach)[places - places[0]]
        mixed = (windows * filters[phases]).sum(axis=1)
        self._tape.forget(int(places[-1]) - reach + 1)
        return np.asarray(np.rint(np.clip(mixed, -32768, 32767)), np.int16)


def reach_of(rate: int) -> int:
    """Input samples that an output hears on either side."""
    return math.ceil(CROSSINGS * max(rate / SAMPLE_RATE, 1))


@lru_cache(maxsize=4)
def design(rate: int, n_phases: int) -> npt.NDArray[np.float64]:
    """The filter for each place between two input samples: (phases, 2 * reach), each of sum 1."""
    reach = reach_of(rate)
    band = PASSED * min(SAMPLE_RATE / rate, 1)
    taps = np.arange(-reach + 1, reach + 1)
    t = np.arange(n_phases)[:, None] / n_phases - taps
    window = np.i0(BETA * np.sqrt(np.maximum(1 - (t / reach) ** 2, 0))) / np.i0(BETA)
    filters = np.sinc(t * band) * window
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))
