from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from inference.faces import FaceBox
from inference.faces.paste import lower_face_mask, whole_face_mask
from inference.faces.turned_box import bounds_in_frame, cut_turned, paste_turned, patch_to_frame, rotate

FRAME = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 256, (200, 240, 3), np.uint8), (0, 0), 3)
BOX = FaceBox(80, 60, 140, 130)  # 60 x 70 around (110, 95)


def test_without_a_turn_it_is_the_box():
    assert np.array_equal(cut_turned(FRAME, BOX, 0.0), FRAME[60:130, 80:140])
    assert patch_to_frame(BOX, 0.0) @ (0, 0, 1) == pytest.approx((80, 60))


def test_angles_are_clockwise_on_the_screen():
    assert rotate(np.array([1.0, 0.0]), math.pi / 2) == pytest.approx((0, 1))  # right becomes down
    chin = patch_to_frame(BOX, math.pi / 2) @ (29.5, 69, 1)  # middle of the lowest row
    assert chin == pytest.approx((109.5 - 34.5, 94.5))  # left of the centre: the chin points left


@pytest.mark.parametrize(
    ("angle", "turn"), [(90, cv2.ROTATE_90_CLOCKWISE), (180, cv2.ROTATE_180), (-90, cv2.ROTATE_90_COUNTERCLOCKWISE)]
)
def test_a_turned_head_is_cut_out_upright(angle: int, turn: int):
    upright = FRAME[60:130, 80:140]
    canvas = np.zeros((200, 240, 3), np.uint8)
    turned = cv2.rotate(np.ascontiguousarray(upright), turn)
    height, width = turned.shape[:2]
    canvas[95 - height // 2 : 95 - height // 2 + height, 110 - width // 2 : 110 - width // 2 + width] = turned
    assert np.array_equal(cut_turned(canvas, BOX, math.radians(angle)), upright)


@pytest.mark.parametrize("angle", [25, 90, -130, 180])
@pytest.mark.parametrize("box", [BOX, FaceBox(-30, -20, 50, 60), FaceBox(200, 150, 270, 250)])
def test_pasting_back_what_was_cut_changes_nothing(angle: int, box: FaceBox):
    turn = math.radians(angle)
    weight = lower_face_mask(int(box.height), int(box.width))
    pasted = paste_turned(FRAME, cut_turned(FRAME, box, turn), weight, box, turn)
    assert np.abs(pasted.astype(int) - FRAME).max() <= 8  # interpolated twice
    assert np.abs(pasted.astype(int) - FRAME).mean() < 0.3


def test_only_the_lower_face_is_changed_in_its_own_axes():
    black, turn = np.zeros((70, 60, 3), np.uint8), math.pi
    pasted = paste_turned(np.full_like(FRAME, 200), black, lower_face_mask(70, 60), BOX, turn)
    rows, columns = np.nonzero((pasted != 200).any(axis=2))
    assert (rows.min(), rows.max()) == (60, 99)  # upside down, the lower 0.58 of the box is above
    assert columns.min() >= 80
    assert columns.max() < 140
    assert (pasted[70:80, 100:120] == 0).all()
    whole = paste_turned(np.full_like(FRAME, 200), black, whole_face_mask(70, 60), BOX, turn)
    assert (whole[61:129, 81:139] == 0).all()
    assert (whole[:59] == 200).all()


def test_a_box_outside_the_frame_changes_nothing():
    box = FaceBox(500, 500, 560, 570)
    pasted = paste_turned(FRAME, cut_turned(FRAME, box, 1.0), whole_face_mask(70, 60), box, 1.0)
    assert np.array_equal(pasted, FRAME)
    assert pasted is not FRAME


def test_the_bounds_are_those_of_the_corners():
    left, top, right, bottom = bounds_in_frame(BOX, math.pi / 2, FRAME.shape)
    assert (left, top, right, bottom) == pytest.approx((74, 64, 146, 126), abs=1)
