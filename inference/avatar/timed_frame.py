"""One frame of an avatar session: 40 ms of video and audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox

FRAME_MS = 40  # 25 frames per second


@dataclass(frozen=True)
class TimedFrame:
    """A frame of a session, with its place in time.

    frame: counts from 0 in a session and never restarts. generation: rises by one at each interrupt. background: index
    of the package's frame underneath. box: position of the patch in it, in whole pixels. patch: (h, w, 3) uint8 BGR, at
    the box's size. pcm: (n,) int16, the audio of these 40 ms as it was pushed, at the rate it was pushed at; zeros in
    silence and after the end. visemes: of the frame, as fields of an event; None if they are not estimated.
    """

    frame: int
    generation: int
    is_speaking: bool
    background: int
    box: FaceBox
    patch: npt.NDArray[np.uint8]
    pcm: npt.NDArray[np.int16]
    visemes: Mapping[str, object] | None = None

    @property
    def pts_ms(self) -> int:
        return self.frame * FRAME_MS
