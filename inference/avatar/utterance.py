"""One utterance: from samples to the audio features of each frame."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from inference.audio import Resampler, SampleBuffer
from inference.audio.avatar_features import (
    AVATAR_FPS,
    FEATURE_ROWS,
    LAST_WINDOW,
    Features,
    sample_range_of_window,
    windows_of_frame,
)
from inference.audio.mel import SAMPLE_RATE, Samples

FeatureRow = npt.NDArray[np.float32]  # (numbers,)


class Utterance:
    """Speech that is still arriving, or is complete. Silence precedes and follows it.

    Frame i starts at i / 25 s. Its features do not depend on how the samples were split: each window is encoded
    separately, from its own samples. Take frames in order: `take_windows`, then `advance`.
    """

    def __init__(self, sample_rate: int, look_ahead: int = LAST_WINDOW, wait_ms: float = 0.0) -> None:
        """Start an utterance.

        look_ahead: of each frame, in windows; it belongs to the avatar's weights. wait_ms: audio from its start that a
        frame waits for, if that is more. Raises: InvalidRequest if the sample rate is not supported.
        """
        self._resampler = Resampler(sample_rate)
        self._rate, self._look_ahead = sample_rate, look_ahead
        self._n_waiting = round(wait_ms * SAMPLE_RATE / 1000)
        self._pcm = SampleBuffer()  # at the client's rate
        self._resampled = SampleBuffer()  # at 16 kHz
        self._has_ended = False
        self._frame = 0  # index of the next frame
        self._rows: deque[FeatureRow] = deque(maxlen=FEATURE_ROWS)

    @property
    def n_pending(self) -> int:
        """Samples, at the client's rate, of frames that were not generated yet."""
        return max(self._pcm.end - self._start_of(self._frame), 0)

    @property
    def is_over(self) -> bool:
        """Whether the utterance is complete and every frame was generated."""
        return self._has_ended and self.n_pending == 0

    @property
    def is_ready(self) -> bool:
        """Whether all audio that the next frame needs has arrived."""
        if self._has_ended:
            return not self.is_over
        _, behind = sample_range_of_window(self._windows()[-1])
        behind = max(behind, self._frame * SAMPLE_RATE // AVATAR_FPS + self._n_waiting)
        return self._resampled.end >= behind and self._pcm.end >= self._start_of(self._frame + 1)

    def push(self, pcm: Samples) -> None:
        self._pcm.append(pcm)
        self._resampled.append(self._resampler.push(pcm))

    def end(self) -> None:
        """Mark the utterance as complete: the windows of the last frames are padded with silence."""
        self._resampled.append(self._resampler.finish())
        self._has_ended = True

    def pcm(self) -> Samples:
        """Return the next frame's own audio as pushed: (n,) int16, 40 ms, zeros after the end."""
        return self._pcm.read(self._start_of(self._frame), self._start_of(self._frame + 1))

    def take_windows(self) -> list[Samples]:
        """Return the samples of each window that the next frame needs and the previous frame did not."""
        windows = self._windows()
        new = windows[-1:] if self._rows else windows
        return [self._resampled.read(*sample_range_of_window(k)) for k in new]

    def stack_rows(self, new: list[FeatureRow]) -> Features:
        """Return the features of the next frame, (16, numbers), given the rows of the windows just taken."""
        kept = list(self._rows)[len(new) :] if self._rows else []
        return np.stack([*kept, *new])

    def advance(self, new: list[FeatureRow]) -> None:
        """Move on to the next frame, and drop samples that no later frame needs."""
        self._rows.extend(new)
        self._frame += 1
        self._pcm.discard_before(self._start_of(self._frame))
        self._resampled.discard_before(sample_range_of_window(self._windows()[-1])[0])

    def _windows(self) -> range:
        return windows_of_frame(self._frame, self._look_ahead)

    def _start_of(self, frame: int) -> int:
        """Return the first sample of a frame's own audio. Rounded down from zero each time, so there is no drift."""
        return frame * self._rate // AVATAR_FPS
