"""The mouths of a video in one image, for people to look at."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.errors import VisemeError
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH

MAX_MOUTHS = 200  # of one strip, even; 1.2 KB each. Of a longer video every second, fourth, ... mouth is kept
MOUTH_WIDTH, MOUTH_HEIGHT = CROP_WIDTH * 3 // 4, CROP_HEIGHT * 3 // 4  # px, 96 x 48: JPEG codes blocks of 16 px
JPEG_QUALITY = 80


@dataclass(frozen=True)
class MouthStrip:
    """Mouths side by side, as the network was given them.

    image: a JPEG file in base64, `count` * `width` x `height` px. Mouth i is that at i * `interval_s` s of the video.
    """

    image: str
    count: int
    width: int
    height: int
    interval_s: float


class MouthSampler:
    """Keeps evenly spaced mouths of a video of any length, at most MAX_MOUTHS: 2.8 MB."""

    def __init__(self) -> None:
        self._mouths: list[npt.NDArray[np.uint8]] = []
        self._step = 1  # frames from one mouth to the next
        self._n_frames = 0

    def add(self, crop_bgr: npt.NDArray[np.uint8]) -> None:
        """Add the mouth of the next frame, (64, 128, 3) uint8 BGR."""
        if self._n_frames % self._step == 0 and len(self._mouths) == MAX_MOUTHS:
            del self._mouths[1::2]
            self._step *= 2
        if self._n_frames % self._step == 0:
            small = cv2.resize(crop_bgr, (MOUTH_WIDTH, MOUTH_HEIGHT), interpolation=cv2.INTER_AREA)
            self._mouths.append(np.asarray(small, np.uint8))
        self._n_frames += 1

    def make_strip(self, fps: float) -> MouthStrip:
        """Return the strip of at least one mouth. fps: frames per second."""
        strip = np.concatenate(self._mouths, axis=1)
        is_encoded, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not is_encoded:
            raise VisemeError(f"a strip of shape {strip.shape} could not be encoded as JPEG")
        image = b64encode(jpeg.tobytes()).decode()
        return MouthStrip(image, len(self._mouths), MOUTH_WIDTH, MOUTH_HEIGHT, round(self._step / fps, 3))
