from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.lips import (
    Talk,
    correlate,
    loudness_of,
    mouth_of,
    opening_of,
    shuffle_sound,
    starts_of_windows,
    watch,
)
from inference.faces import FaceBox, Landmarker
from inference.lip_sync.preprocess import Shot


@pytest.fixture(scope="module")
def talk(talking_film: bytes, landmarker: Landmarker, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    path = tmp_path_factory.mktemp("talk") / "film.mp4"
    path.write_bytes(talking_film)
    return watch(path, landmarker)


def face_of(gap: float, eyes: float = 50.0) -> np.ndarray:
    """68 points with the inner lips so far apart, and the outer corners of the eyes."""
    points = np.zeros((68, 2), np.float32)
    points[[61, 62, 63], 1] = 100
    points[[65, 66, 67], 1] = 100 + gap
    points[45] = eyes * 0.6, eyes * 0.8
    return points


def test_an_opening_is_the_gap_over_the_distance_of_the_eyes():
    assert opening_of(np.stack([face_of(5), face_of(20), face_of(20, eyes=100)])) == pytest.approx([0.1, 0.4, 0.2])


def test_correlation_by_hand():
    assert correlate(np.array([0.0, 1, 2]), np.array([5.0, 7, 9, 100])) == pytest.approx(1)
    assert correlate(np.array([0.0, 1, 0]), np.array([1.0, 0, 1])) == pytest.approx(-1)
    assert correlate(np.zeros(3), np.array([1.0, 0, 1])) == 0


def test_loudness_is_of_each_frame():
    samples = np.concatenate([np.zeros(640), np.full(640, 99), np.full(100, 7)]).astype(np.int16)
    silent, loud, tail, beyond = loudness_of(samples, 4)
    assert silent == beyond == 0
    assert loud == pytest.approx(10 * np.log10(99**2 + 1))
    assert 0 < tail < loud


def test_shuffled_sound_is_the_same_sound_in_another_order():
    samples = np.arange(16_000, dtype=np.int16)
    mixed = shuffle_sound(samples, 0.1, np.random.default_rng(0))
    assert not np.array_equal(mixed, samples)
    assert np.array_equal(np.sort(mixed), samples)
    assert np.count_nonzero(np.diff(mixed) != 1) < 10


def test_a_mouth_lies_around_its_lips():
    points = np.zeros((68, 2), np.float32)
    points[48:, 0], points[48:, 1] = 60, 130
    points[50] = 80, 150
    shot = Shot(np.zeros((288, 360, 3), np.uint8), FaceBox(20, 40, 116, 232))  # one px of the face is 1 x 2 px
    assert mouth_of(shot, points) == (slice(45 - 11, 55 + 11), slice(40 - 11, 60 + 11))
    with pytest.raises(ValueError, match="without a face"):
        mouth_of(Shot(shot.frame, None), points)


def test_windows_start_where_lip_sync_cuts_them():
    assert starts_of_windows(4) == [-4, 0, 3, 6]


def test_a_talking_film_is_seen_as_lip_sync_sees_it(talk: Talk):
    assert len(talk.shots) == len(talk.points) == 75
    assert 48_000 <= len(talk.samples) < 49_024  # AAC ends with a whole frame
    assert all(shot.box is not None for shot in talk.shots)
    assert talk.opening.max() > 3 * np.median(talk.opening[:4])  # it says nothing at first


def test_a_film_without_a_face_is_refused(tmp_path: Path, landmarker: Landmarker):
    from inference.media.encode import write_film

    with write_film(tmp_path / "grey.mp4", 25) as writer:
        writer.add(np.full((96, 96, 3), 128, np.uint8))
    with pytest.raises(ValueError, match="frame 0 shows no face"):
        watch(tmp_path / "grey.mp4", landmarker)
