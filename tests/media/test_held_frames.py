from __future__ import annotations

import numpy as np
from support.video_files import make_video

from inference.media import open_media
from inference.media.held_frames import HeldFrameDetector

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def held(frames: list[np.ndarray]) -> list[bool]:
    detector = HeldFrameDetector()
    return [detector.is_held(frame) for frame in frames]


def test_a_frame_that_is_shown_again_is_held():
    other = 255 - NOISE
    assert held([NOISE, NOISE, NOISE.copy(), other, other, NOISE]) == [False, True, True, False, True, False]


def test_small_changes_are_noise_of_the_encoder():
    one, other = np.clip(NOISE, 10, 240), np.clip(NOISE, 10, 240)
    other[8, 8] += 4
    third = one.copy()
    third[8, 8] += 5
    assert held([one, other, third]) == [False, True, False]


def test_a_slow_change_is_a_change():
    frames = [np.full((48, 64, 3), level, np.uint8) for level in range(100, 112)]
    assert held(frames).count(False) == 3  # against the first of each run, not the last frame


def test_another_size_is_another_frame():
    assert held([NOISE, NOISE[:40].copy(), NOISE]) == [False, False, False]


def test_an_encoded_still_is_held():
    with open_media(make_video([NOISE] * 50)) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
    assert held(frames).count(False) <= 2
