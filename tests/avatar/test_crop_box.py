from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference.avatar.crop_box import (
    crop_box_from_landmarks,
    crop_box_from_lms,
    fit_box,
    interpolate_missing,
    mouth_gap,
    read_all_lms,
    read_lms,
)
from inference.errors import BadPackage, NoFaceFound
from inference.faces import FaceBox
from inference.speaker import SyntheticClip


def as_text(points: np.ndarray) -> str:
    return "".join(f"{x:g} {y:g}\n" for x, y in points)


def some_lms() -> np.ndarray:
    points = np.arange(220, dtype=float).reshape(110, 2)
    points[1], points[31], points[52] = (100.9, 7), (250.2, 8), (9, 60.7)
    return points


def test_boxes_of_a_real_avatar_match_upstream(shared: Path):
    rects = json.loads((shared / "sanders" / "crop_rects.json").read_text())
    all_points = read_all_lms(shared / "sanders" / "landmarks")
    assert len(all_points) == len(rects) == 523
    for points, rect in zip(all_points, rects, strict=True):
        assert crop_box_from_lms(points) == FaceBox(*rect)
    assert max(map(mouth_gap, all_points)) == pytest.approx(0.15, abs=0.1)


def test_the_rule_by_hand():
    """Truncated to whole pixels, and square."""
    assert crop_box_from_lms(some_lms()) == FaceBox(100, 60, 250, 210)


def test_our_landmarks_give_the_same_crop_by_hand():
    points = np.zeros((68, 2))
    points[0], points[16], points[29] = (100, 50), (200, 50), (150, 80)
    assert crop_box_from_landmarks(points) == FaceBox(97, 80, 203, 186)


def test_the_crop_of_a_rendered_face_contains_mouth_and_chin():
    for shot in SyntheticClip("BIN BLUE AT F TWO NOW", 3).frames():
        points = shot.landmarks[0]
        box = crop_box_from_landmarks(points)
        for x, y in [*points[48:68], *points[6:11]]:
            assert box.left < x < box.right
            assert box.top < y < box.bottom
        assert (points[36:48, 1] < box.top).all()  # the eyes are outside the crop


def test_the_gap_between_lips_grows_as_they_part():
    shots = list(SyntheticClip("BIN BLUE AT F TWO NOW", 3).frames())
    gaps = [mouth_gap(shot.landmarks[0]) for shot in shots]
    opened = [shot.mouth.open for shot in shots]
    assert gaps[0] < 0.005
    assert max(gaps) > 0.05
    assert np.corrcoef(gaps, opened)[0, 1] > 0.7


def test_a_box_is_moved_into_the_frame():
    assert fit_box(FaceBox(-5, 10, 95, 110), 200, 100, "film") == FaceBox(0, 0, 100, 100)
    assert fit_box(FaceBox(150, 10, 210, 70), 200, 100, "film") == FaceBox(140, 10, 200, 70)
    with pytest.raises(NoFaceFound, match="a face 40 px wide from jaw to jaw; at least 48"):
        fit_box(FaceBox(0, 0, 40, 40), 200, 100, "film")
    with pytest.raises(NoFaceFound, match="120 px, larger than the 200x100 frame"):
        fit_box(FaceBox(0, 0, 120, 120), 200, 100, "film")


def test_landmark_files_are_read(tmp_path: Path):
    (tmp_path / "0.lms").write_text(as_text(some_lms()))
    np.testing.assert_array_equal(read_lms(tmp_path / "0.lms"), some_lms())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (as_text(some_lms()[:68]), "68 points; expected 110"),
        (as_text(some_lms()).replace("\n", " 1\n"), "110 points; expected 110, two numbers each"),
        ("face\n" * 110, 'not lines of "x y"'),
        (as_text(some_lms()).replace("60.7", "nan"), "expected 110, two numbers each"),
        ("1 2\n3\n", 'not lines of "x y"'),
        ("1 1\n" * 5000, "20000 bytes; at most 16384"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, text: str, found: str):
    (tmp_path / "0.lms").write_text(text)
    with pytest.raises(BadPackage, match=found):
        read_lms(tmp_path / "0.lms")


@pytest.mark.parametrize(("numbers", "missing"), [([0, 1, 3], 2), ([1, 2], 0), ([], 0)])
def test_a_frame_without_its_file_is_named(tmp_path: Path, numbers: list[int], missing: int):
    for i in numbers:
        (tmp_path / f"{i}.lms").write_text(as_text(some_lms()))
    with pytest.raises(BadPackage, match=f"{missing}.lms is missing"):
        read_all_lms(tmp_path)


def test_landmarks_of_frames_without_a_face_are_interpolated():
    one, two = np.full((3, 2), 10.0), np.full((3, 2), 40.0)
    filled = interpolate_missing([None, one, None, None, two, None])
    assert [points[0, 0] for points in filled] == [10, 10, 20, 30, 40, 40]
    with pytest.raises(ValueError, match="no frame has landmarks"):
        interpolate_missing([None, None])
