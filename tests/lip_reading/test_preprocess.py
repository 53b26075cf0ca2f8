from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from support.drawn_face import draw_face

from inference.errors import NoFaceFound
from inference.faces import Face, FaceBox, FaceRegion, FaceTracker
from inference.faces.crop import MEAN_FACE, crop_mouth
from inference.lip_reading.preprocess import (
    WINDOW_FRAMES,
    MouthCrop,
    crop_mouths,
    cut_windows,
    fill_gap,
    merge_short_shots,
)
from inference.media import Clip


def mouth(level: int, gap_length: int = 0, shot: int = 0) -> MouthCrop:
    lips = np.full((20, 2), level / 100, np.float32)
    return MouthCrop(np.full((64, 128, 3), level, np.uint8), lips, gap_length, shot)


def level_of(one: MouthCrop) -> int:
    return int(one.crop[0, 0, 0])


def test_a_short_gap_is_blended_from_both_sides():
    filled = list(fill_gap(mouth(100), mouth(140), 3))
    assert [level_of(m) for m in filled] == [110, 120, 130]
    assert [m.lips[0, 0] for m in filled] == pytest.approx([1.1, 1.2, 1.3])
    assert all(m.gap_length == 3 for m in filled)


def test_a_long_gap_repeats_the_nearer_side():
    assert [level_of(m) for m in fill_gap(mouth(10), mouth(90), 40)] == [10] * 20 + [90] * 20


def test_half_a_second_is_the_longest_gap_that_is_blended():
    assert len({level_of(m) for m in fill_gap(mouth(0), mouth(130), 12)}) == 12
    assert len({level_of(m) for m in fill_gap(mouth(0), mouth(130), 13)}) == 2


def test_a_gap_with_a_cut_in_it_is_not_blended():
    filled = list(fill_gap(mouth(10, shot=1), mouth(90, shot=2), 5))
    assert [level_of(m) for m in filled] == [10, 10, 10, 90, 90]
    assert [m.shot for m in filled] == [1, 1, 1, 2, 2]


def test_gaps_at_the_ends_repeat_their_only_side():
    assert [level_of(m) for m in fill_gap(None, mouth(7), 2)] == [7, 7]
    assert [level_of(m) for m in fill_gap(mouth(9), None, 2)] == [9, 9]


def test_crops_have_no_gaps_and_lips_are_shares_of_the_frame():
    points = np.vstack([np.zeros((17, 2)), MEAN_FACE]).astype(np.float32)
    face = Face(points, FaceBox(0, 0, 256, 256), FaceRegion(128, 128, 256, 0), 1.0)
    frame = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    tracked = [(Clip((frame,) * 4, 25.0), (None, face, None, face))]
    mouths = list(crop_mouths(tracked, "clip", FaceTracker.__new__(FaceTracker)))
    assert [m.gap_length for m in mouths] == [1, 0, 1, 0]
    assert np.array_equal(mouths[1].crop, crop_mouth(frame, points))
    assert mouths[1].lips == pytest.approx(points[48:68] / (400, 300))
    assert mouths[1].lips.dtype == np.float32


def test_no_face_at_all_is_an_error(landmarker):
    clips = [(Clip((np.zeros((64, 64, 3), np.uint8),) * 3, 25.0), (None,) * 3)]
    with pytest.raises(NoFaceFound, match="clip: no face found in 3 frames"):
        list(crop_mouths(clips, "clip", FaceTracker(landmarker)))


def test_a_selected_face_that_never_appears_is_an_error(landmarker):
    tracker = FaceTracker(landmarker, 1)
    frames = (draw_face(),) * 2
    with pytest.raises(NoFaceFound, match="face 1 was asked for, counted from 0, but no frame shows more than 1 face"):
        list(crop_mouths([(Clip(frames, 25.0), tracker.follow(frames))], "clip", tracker))


@pytest.mark.parametrize(
    ("n_frames", "starts"),
    [(1, [0]), (40, [0]), (75, [0]), (76, [0, 1]), (135, [0, 60]), (136, [0, 60, 61]), (200, [0, 60, 120, 125])],
)
def test_windows_cover_every_frame_and_end_with_the_video(n_frames: int, starts: list[int]):
    windows = list(cut_windows((mouth(i % 256) for i in range(n_frames)), hop=60))
    assert [w.start for w in windows] == starts
    for window in windows:
        assert window.video.shape == (WINDOW_FRAMES, 64, 128, 3)
        assert window.lips.shape == (WINDOW_FRAMES, 20, 2)
        assert window.n_frames == min(n_frames, WINDOW_FRAMES)
        expected = [(window.start + i) % 256 for i in range(window.n_frames)]
        assert window.video[: window.n_frames, 0, 0, 0].tolist() == expected


def shots_of(*runs: tuple[int, int]) -> list[MouthCrop]:
    """Return mouths of shots, each given by its number and its length; their level is the number of the frame."""
    numbers = [shot for shot, length in runs for _ in range(length)]
    return [mouth(i % 256, shot=shot) for i, shot in enumerate(numbers)]


@pytest.mark.parametrize(
    ("runs", "merged"),
    [
        ([(0, 30), (1, 30)], [(0, 30), (1, 30)]),
        ([(0, 30), (1, 25), (0, 30)], [(0, 30), (1, 25), (0, 30)]),
        ([(0, 30), (1, 24), (2, 30)], [(0, 54), (2, 30)]),  # a short shot belongs to the one before
        ([(0, 30), (1, 1), (0, 30)], [(0, 61)]),  # a flash
        ([(0, 3), (1, 30)], [(0, 3), (1, 30)]),
        ([(0, 30), *((i, 1) for i in range(1, 60))], [(0, 89)]),  # a strobe
        ([(4, 10)], [(4, 10)]),
        ([], []),
    ],
)
def test_short_shots_are_read_with_the_one_before(runs: list, merged: list):
    found = list(merge_short_shots(shots_of(*runs)))
    assert [level_of(one) for one in found] == [level_of(one) for one in shots_of(*runs)]
    assert [(shot, len(list(run))) for shot, run in groupby(one.shot for one in found)] == merged


@pytest.mark.parametrize(
    ("runs", "windows"),
    [
        ([(0, 75), (1, 75)], [(0, 75), (75, 75)]),
        ([(0, 40), (1, 100)], [(0, 40), (40, 75), (65, 75)]),
        ([(0, 135), (1, 30)], [(0, 75), (60, 75), (135, 30)]),
    ],
)
def test_no_window_has_a_cut_in_it(runs: list, windows: list):
    found = list(cut_windows(shots_of(*runs), hop=60))
    assert [(one.start, one.n_frames) for one in found] == windows
    for one in found:
        assert one.video[: one.n_frames, 0, 0, 0].tolist() == list(range(one.start, one.start + one.n_frames))


def test_a_short_clip_is_padded_with_zeros_as_in_training():
    (window,) = cut_windows([mouth(50)] * 10, hop=60)
    assert window.video[10:].max() == 0
    assert window.lips[10:].max() == 0
    assert window.gap_lengths == (0,) * 10
