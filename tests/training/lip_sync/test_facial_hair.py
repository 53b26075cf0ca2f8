from __future__ import annotations

import numpy as np
import pytest

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.arrays import Bytes, Floats
from training.lip_sync.facial_hair import FacialHair, draw_facial_hair

MIDDLE = (48.0, 66.0)
HALF_WIDTH, HALF_HEIGHT = 14.0, 6.0


@pytest.fixture
def skin() -> Bytes:
    return np.full((FACE_SIZE, FACE_SIZE, 3), (120, 150, 200), np.uint8)


@pytest.fixture
def lips() -> Floats:
    """Return an ellipse, from the left corner over the upper lip; the inner lips are its middle."""
    angles = np.pi + np.arange(12) * np.pi / 6
    outline = np.column_stack([np.cos(angles) * HALF_WIDTH, np.sin(angles) * HALF_HEIGHT])
    return np.concatenate([outline, np.zeros((8, 2))]).astype(np.float32) + np.float32(MIDDLE)


def make_hair(above: float, below: float) -> FacialHair:
    texture = np.ones((FACE_SIZE, FACE_SIZE), np.float32)
    return FacialHair(1.3, above, below, np.full(3, 0.2, np.float32), texture)


@pytest.mark.parametrize(
    ("above", "below", "is_dark_above", "is_dark_below"),
    [(2.0, 0.0, True, False), (0.0, 2.5, False, True), (2.0, 2.5, True, True)],
)
def test_hair_grows_around_the_lips_and_not_on_them(
    skin: Bytes, lips: Floats, above: float, below: float, is_dark_above: bool, is_dark_below: bool
):
    grey = make_hair(above, below).paint(skin, lips).mean(2)
    x, y = (round(value) for value in MIDDLE)
    assert (grey[y - 9, x] < 60) == is_dark_above
    assert (grey[y + 10, x] < 60) == is_dark_below
    assert np.abs(grey[y - 2 : y + 3, x - 6 : x + 7] - skin.mean()).max() < 3
    assert (grey[:40] == grey[0, 0]).all()


def test_hair_moves_with_the_lips(skin: Bytes, lips: Floats):
    hair = make_hair(2.0, 0.0)
    shift = np.array([3, 5], np.float32)
    moved = hair.paint(skin, lips + shift)
    assert np.array_equal(moved[20:90, 13:80], hair.paint(skin, lips)[15:85, 10:77])


def test_hair_without_a_place_to_grow_changes_nothing(skin: Bytes, lips: Floats):
    assert np.array_equal(make_hair(2.0, 0.0).paint(skin, lips + 500), skin)


def test_the_same_seed_draws_the_same_hair(skin: Bytes, lips: Floats):
    painted = [draw_facial_hair(np.random.default_rng(seed)).paint(skin, lips) for seed in (*range(20), 3)]
    assert np.array_equal(painted[3], painted[-1])
    assert all((one != skin).any() for one in painted)
    darkest = [one.min() for one in painted]
    assert min(darkest) < 60  # dark
    assert max(darkest) > 85  # fair
