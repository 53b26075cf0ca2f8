"""The strip of mouths: which mouths it has, and where."""

from __future__ import annotations

from base64 import b64decode

import cv2
import numpy as np
import pytest

from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH
from inference.lip_reading.mouth_strip import MAX_MOUTHS, MOUTH_HEIGHT, MOUTH_WIDTH, MouthSampler, MouthStrip


def strip_of(n_frames: int) -> MouthStrip:
    """Return the strip of mouths whose blue is their frame, in 256 steps, and whose red is its complement."""
    sampler = MouthSampler()
    for i in range(n_frames):
        sampler.add(np.full((CROP_HEIGHT, CROP_WIDTH, 3), (i % 256, 0, 255 - i % 256), np.uint8))
    return sampler.make_strip(25.0)


@pytest.mark.parametrize(
    ("n_frames", "count", "step"),
    [(1, 1, 1), (75, 75, 1), (MAX_MOUTHS, 200, 1), (MAX_MOUTHS + 1, 101, 2), (1001, 126, 8)],
)
def test_mouths_are_evenly_spaced_from_the_first_frame_on(n_frames: int, count: int, step: int):
    strip = strip_of(n_frames)
    assert (strip.count, strip.interval_s) == (count, step / 25)
    assert strip.interval_s * 25 * (count - 1) <= n_frames - 1 < strip.interval_s * 25 * count
    image = cv2.imdecode(np.frombuffer(b64decode(strip.image), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (MOUTH_HEIGHT, count * MOUTH_WIDTH, 3)
    centres = image[MOUTH_HEIGHT // 2, MOUTH_WIDTH // 2 :: MOUTH_WIDTH].astype(int)
    expected = np.arange(count) * step % 256
    assert np.abs(centres[:, 0] - expected).max() <= 4  # JPEG
    assert np.abs(centres[:, 2] - (255 - expected)).max() <= 4
