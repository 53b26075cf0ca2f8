from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.lips import (
    SpeakingVideo,
    correlate_at_lag,
    frame_loudness,
    mel_window_starts,
    mouth_opening,
    mouth_region,
    read_speaking_video,
    shuffle_audio,
)
from inference.faces import FaceBox, Landmarker
from inference.lip_sync.preprocess import FaceFrame


@pytest.fixture(scope="module")
def speaking_video(
    talking_film: bytes, landmarker: Landmarker, tmp_path_factory: pytest.TempPathFactory
) -> SpeakingVideo:
    path = tmp_path_factory.mktemp("speaking") / "video.mp4"
    path.write_bytes(talking_film)
    return read_speaking_video(path, landmarker)


def make_landmarks(gap: float, eye_distance: float = 50.0) -> np.ndarray:
    """Return 68 points with that gap between the inner lips and that distance between the outer eye corners."""
    points = np.zeros((68, 2), np.float32)
    points[[61, 62, 63], 1] = 100
    points[[65, 66, 67], 1] = 100 + gap
    points[45] = eye_distance * 0.6, eye_distance * 0.8
    return points


def test_an_opening_is_the_gap_over_the_distance_of_the_eyes():
    points = np.stack([make_landmarks(5), make_landmarks(20), make_landmarks(20, eye_distance=100)])
    assert mouth_opening(points) == pytest.approx([0.1, 0.4, 0.2])


def test_correlation_by_hand():
    assert correlate_at_lag(np.array([0.0, 1, 2]), np.array([5.0, 7, 9, 100])) == pytest.approx(1)
    assert correlate_at_lag(np.array([0.0, 1, 0]), np.array([1.0, 0, 1])) == pytest.approx(-1)
    assert correlate_at_lag(np.zeros(3), np.array([1.0, 0, 1])) == 0


def test_a_late_mouth_correlates_best_at_its_lag():
    truth = np.random.default_rng(0).random(60)
    late = np.concatenate([[0.5, 0.5], truth[:-2]])
    by_lag = {lag: correlate_at_lag(late, truth, lag) for lag in range(-6, 7)}
    assert max(by_lag, key=lambda lag: by_lag[lag]) == 2
    assert by_lag[2] == pytest.approx(1)
    assert correlate_at_lag(late[:50], truth, 2) == pytest.approx(1)  # over the frames that both have


def test_loudness_is_measured_in_each_frame():
    samples = np.concatenate([np.zeros(640), np.full(640, 99), np.full(100, 7)]).astype(np.int16)
    silent, loud, tail, beyond = frame_loudness(samples, 4)
    assert silent == beyond == 0
    assert loud == pytest.approx(10 * np.log10(99**2 + 1))
    assert 0 < tail < loud


def test_shuffled_audio_has_the_same_pieces_in_another_order():
    samples = np.arange(16_001, dtype=np.int16)
    shuffled = shuffle_audio(samples, 0.1, np.random.default_rng(0))
    assert not np.array_equal(shuffled, samples)
    assert np.array_equal(np.sort(shuffled), samples)
    assert 0 < np.count_nonzero(np.diff(shuffled) != 1) <= 10


def test_a_mouth_region_surrounds_the_lips():
    points = np.zeros((68, 2), np.float32)
    points[48:, 0], points[48:, 1] = 60, 130
    points[50] = 80, 150
    box = FaceBox(20, 40, 116, 232)  # one px of the 96 x 96 face is 1 x 2 px of the frame
    face_frame = FaceFrame(np.zeros((288, 360, 3), np.uint8), box)
    assert mouth_region(face_frame, points) == (slice(45 - 11, 55 + 11), slice(40 - 11, 60 + 11))
    with pytest.raises(ValueError, match="without a face"):
        mouth_region(FaceFrame(face_frame.frame, None), points)


def test_mel_windows_start_as_in_lip_sync():
    assert mel_window_starts(4) == [-4, 0, 3, 6]


def test_a_speaking_video_is_read_as_in_lip_sync(speaking_video: SpeakingVideo):
    assert len(speaking_video.face_frames) == len(speaking_video.points) == 75
    assert 48_000 <= len(speaking_video.samples) < 49_024  # AAC ends with a whole frame
    assert all(one.box is not None for one in speaking_video.face_frames)
    opening = speaking_video.opening
    assert opening.max() > 3 * np.median(opening[:4])  # it starts with silence


def test_a_video_without_a_face_is_rejected(tmp_path: Path, landmarker: Landmarker):
    from inference.media.encode import write_video

    with write_video(tmp_path / "grey.mp4", 25) as writer:
        writer.add(np.full((96, 96, 3), 128, np.uint8))
    with pytest.raises(ValueError, match="no face found in frame 0"):
        read_speaking_video(tmp_path / "grey.mp4", landmarker)
