"""One stretch of speech on its way from samples to what each frame hears."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from inference.audio import Resampler, Tape
from inference.audio.features import FPS, Features, reach_of_window, windows_of_frame
from inference.audio.mel import Samples

FeatureRow = npt.NDArray[np.float32]  # (numbers,)


class Utterance:
    """Speech that is still coming, or has come to its end. Before and behind it there is silence.

    Frame i is spoken from i / 25 s on. Its features are the same however the speech came in: each window is heard by
    itself, from its own samples. Frames are taken in order: `take_windows`, then `advance`.
    """

    def __init__(self, sample_rate: int) -> None:
        """Raises: InvalidRequest for a rate that no speech comes at."""
        self._resampler = Resampler(sample_rate)
        self._rate = sample_rate
        self._pcm = Tape()  # as it came
        self._resampled = Tape()  # at 16 kHz
        self._has_ended = False
        self._frame = 0  # the next
        self._rows: deque[FeatureRow] = deque(maxlen=len(windows_of_frame(0)))

    @property
    def n_pending(self) -> int:
        """Samples, at the client's rate, of frames that are still to come."""
        return max(self._pcm.end - self._start_of(self._frame), 0)

    @property
    def is_over(self) -> bool:
        """Whether all of it was spoken."""
        return self._has_ended and self.n_pending == 0

    @property
    def is_ready(self) -> bool:
        """Whether all that the next frame hears is there."""
        if self._has_ended:
            return not self.is_over
        _, behind = reach_of_window(windows_of_frame(self._frame)[-1])
        return self._resampled.end >= behind and self._pcm.end >= self._start_of(self._frame + 1)

    def push(self, pcm: Samples) -> None:
        self._pcm.append(pcm)
        self._resampled.append(self._resampler.push(pcm))

    def end(self) -> None:
        """Nothing more comes: the last frames hear silence."""
        self._resampled.append(self._resampler.finish())
        self._has_ended = True

    def pcm(self) -> Samples:
        """The next frame's own sound, as it came: (n,) int16, 40 ms, zeros behind the end."""
        return self._pcm.read(self._start_of(self._frame), self._start_of(self._frame + 1))

    def take_windows(self) -> list[Samples]:
        """The samples of each window that the next frame hears and the one before did not."""
        windows = windows_of_frame(self._frame)
        new = windows[-1:] if self._rows else windows
        return [self._resampled.read(*reach_of_window(k)) for k in new]

    def stack_rows(self, new: list[FeatureRow]) -> Features:
        """All that the next frame hears, (16, numbers), given the rows of the windows that were taken."""
        kept = list(self._rows)[len(new) :] if self._rows else []
        return np.stack([*kept, *new])

    def advance(self, new: list[FeatureRow]) -> None:
        """The next frame is the one after; what no frame hears any more is forgotten."""
        self._rows.extend(new)
        self._frame += 1
        self._pcm.forget(self._start_of(self._frame))
        self._resampled.forget(reach_of_window(windows_of_frame(self._frame)[-1])[0])

    def _start_of(self, frame: int) -> int:
        """Where a frame's own sound begins. Rounded down, from zero each time: there is no drift."""
        return frame * self._rate // FPS
