from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.face_packs import (
    MARGIN,
    PACKED_SIDE,
)
from training.lip_sync.augmentation import (
    FaceWarp,
    change_appearance,
    draw_warp,
    mirror,
    perturb_warp,
    warp_face,
    warp_points,
)
from training.lip_sync.samples import (
    PreparedClip,
    remove_margin,
)


def test_points_are_warped_with_their_image(prepared: PreparedClip):
    marked = np.zeros((PACKED_SIDE, PACKED_SIDE, 3), np.uint8)
    point = np.array([[40, 60]], np.float32)
    marked[60 + MARGIN - 1 : 60 + MARGIN + 2, 40 + MARGIN - 1 : 40 + MARGIN + 2] = 255
    still = FaceWarp(np.array([[1, 0, 3], [0, 1, -2]], np.float32), np.zeros((FACE_SIZE, FACE_SIZE, 2), np.float32))
    assert warp_points(point, still) == pytest.approx(np.array([[37, 62]]))
    rng = np.random.default_rng(4)
    for warp in (still, *(draw_warp(rng) for _ in range(20))):
        image, moved = warp_face(marked, warp), warp_points(point, warp)
        for faces, at in (([image], moved), mirror([image], np.repeat(moved, 20, 0))):
            rows, columns = np.nonzero(faces[0][..., 0] > 80)
            assert (columns.mean(), rows.mean()) == pytest.approx(tuple(at[0]), abs=0.7)


def test_another_frame_of_a_face_has_a_similar_warp():
    """Its corners move by the rotation and the scale over half a side, and by the shift."""
    rng = np.random.default_rng(1)
    corners = np.array([(0, 0), (95, 0), (0, 95), (95, 95)], np.float32)
    moved = []
    for _ in range(50):
        warp = draw_warp(rng)
        straight = replace(warp, bend=np.zeros_like(warp.bend))
        other = perturb_warp(straight, rng)
        moved.append(np.abs(warp_points(corners, other) - warp_points(corners, straight)).max())
    assert 0.5 < np.median(moved) < max(moved) < 6


def test_both_images_of_a_sample_change_alike(prepared: PreparedClip):
    face = remove_margin(prepared.faces[0])
    for seed in range(8):
        first, second = change_appearance([face, face], np.random.default_rng(seed))
        assert first.shape == face.shape
        assert np.array_equal(first, second)
        assert not np.array_equal(first, face)
