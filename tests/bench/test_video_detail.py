from __future__ import annotations

import numpy as np
import pytest

from bench.lips import SpeakingVideo
from bench.video_detail import around_lips, energy_of, flicker_of, shorten
from inference.faces import FaceBox
from inference.lip_sync.preprocess import FaceFrame

POINTS = np.zeros((68, 2), np.float32)
POINTS[48:] = [[30, 40], [70, 50]] * 10


def video_of(frames: list[np.ndarray], n_points: int) -> SpeakingVideo:
    face_frames = tuple(FaceFrame(frame, FaceBox(0, 0, 100, 100)) for frame in frames)
    points = np.stack([POINTS + k for k in range(n_points)])
    return SpeakingVideo("drawn", face_frames, points, np.zeros(0, np.int16))


def test_landmarks_are_repeated_with_their_frames():
    one, other = (np.full((100, 100, 3), level, np.uint8) for level in (10, 20))
    found = shorten(video_of([one, one, other], 2))
    assert [points[0, 0] for points in found.points] == [0, 0, 1]


def test_detail_counts_around_the_lips_and_flicker_beside_them():
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (100, 100, 3), dtype=np.uint8)
    plain = np.full_like(grain, 128)
    video = video_of([plain, plain.copy()], 2)
    (region, _), *_ = around_lips([grain, plain], video)
    assert region.shape[:2] == (34, 64)  # 12 pixels of margin
    assert energy_of(region, 0) > energy_of(plain, 0) == 0
    assert flicker_of([grain, grain], video) == 0
    shown = plain.copy()
    shown[:50] = grain[:50]  # only the lips change
    assert flicker_of([plain, shown], video) == pytest.approx(0, abs=0.1)
    assert flicker_of([plain, grain], video) > 10
