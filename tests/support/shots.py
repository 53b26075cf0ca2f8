"""Shots of rendered people, at any place and size in the frame, to be joined by cuts."""

from __future__ import annotations

from functools import cache
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from inference.speaker import SyntheticClip
from support.synthetic_frames import SENTENCE

Frame = npt.NDArray[np.uint8]

SIZE = (640, 360)  # width and height of a frame
WALL = (96, 104, 90)  # BGR, around a person who does not fill the frame


@cache
def render_person(seed: int, n_frames: int) -> tuple[Frame, ...]:
    """Render the first frames of a person who speaks: (288, 360, 3) uint8 BGR."""
    return tuple(one.frame for one in islice(SyntheticClip(SENTENCE, seed).frames(), n_frames))


def film_person(seed: int, n_frames: int, zoom: float = 1.0, left: int = 140, top: int = 36) -> list[Frame]:
    """Return a shot of a person, (360, 640, 3). left, top: of the rendered frame, enlarged by `zoom`."""
    place = np.array([[zoom, 0, left], [0, zoom, top]])
    return [
        np.asarray(cv2.warpAffine(frame, place, SIZE, flags=cv2.INTER_AREA, borderValue=WALL), np.uint8)
        for frame in render_person(seed, n_frames)
    ]
