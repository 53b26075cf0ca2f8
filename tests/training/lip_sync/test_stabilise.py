from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.correlation import correlate
from training.common.face_packs import (
    MARGIN,
    PACKED_SIDE,
)
from training.lip_sync.samples import (
    PreparedClip,
)
from training.lip_sync.stabilise import stabilise


def test_upper_halves_do_not_reveal_the_mouth(prepared: PreparedClip, stabilised: PreparedClip):
    """A box that ends below the chin is taller with an open mouth, so the nose is higher in it."""
    nose = slice(MARGIN + 28, MARGIN + FACE_SIZE // 2), slice(MARGIN + 30, -MARGIN - 30)
    videos = [one.faces[:, *nose].astype(int) for one in (prepared, stabilised)]
    motion = [float(np.abs(video - video[len(video) // 2]).mean()) for video in videos]
    assert motion[1] < 0.6 * motion[0]
    assert correlate(stabilised.gaps, prepared.gaps) > 0.97


def test_faces_are_aligned_to_the_middle_one():
    rng = np.random.default_rng(3)
    face = cv2.resize(
        rng.integers(0, 255, (12, 12, 3), np.uint8), (PACKED_SIDE, PACKED_SIDE), interpolation=cv2.INTER_CUBIC
    )
    lips = np.full((1, 20, 2), (50.0, 70.0), np.float32)
    flatter = np.array([[1, 0, 1.5], [0, 0.97, 1]], np.float32)  # of images with their margin
    squeezed = cv2.warpAffine(face, flatter, (PACKED_SIDE, PACKED_SIDE), borderMode=cv2.BORDER_REPLICATE)
    there = lips @ flatter[:, :2].T + flatter[:, :2] @ np.full(2, MARGIN) + flatter[:, 2] - MARGIN
    faces, points = stabilise(np.stack([squeezed, face, face]), np.concatenate([there, lips, lips]).astype(np.float32))
    assert np.allclose(points, np.concatenate([lips] * 3), atol=0.3)
    inner = slice(MARGIN, -MARGIN)
    assert np.abs(faces[0][inner, inner].astype(int) - face[inner, inner]).mean() < 6
    nothing = np.zeros((PACKED_SIDE, PACKED_SIDE, 3), np.uint8)
    with pytest.raises(ValueError, match="frame 0: its upper half cannot be aligned"):
        stabilise(np.stack([nothing, face, face]), np.concatenate([lips] * 3))
