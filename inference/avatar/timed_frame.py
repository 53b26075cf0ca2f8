"""One moment of an avatar: what is seen and heard in 40 ms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox

FRAME_MS = 40  # at 25 frames a second


@dataclass(frozen=True)
class TimedFrame:
    """frame: counts from 0 in a session and never restarts. generation: rises by one at each interrupt.

    background: which frame of the package lies underneath. box: where the patch goes in it, in whole pixels.
    patch: (h, w, 3) uint8 BGR, at the box's size. pcm: (n,) int16, the sound of these 40 ms at the rate it was pushed
    at, as it came; zeros in silence and behind the end.
    """

    frame: int
    generation: int
    is_speaking: bool
    background: int
    box: FaceBox
    patch: npt.NDArray[np.uint8]
    pcm: npt.NDArray[np.int16]

    @property
    def pts_ms(self) -> int:
        return self.frame * FRAME_MS
