from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.faces import FaceBox
from inference.faces.paste import blend_lower_face, lower_face_mask, overwrite_face


def noise(height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


BOXES = [FaceBox(30, 20, 101, 111), FaceBox(0, 0, 160, 120), FaceBox(60, 60, 62, 61)]


@pytest.mark.parametrize("box", BOXES)
def test_pasting_back_the_original_changes_nothing(box: FaceBox):
    frame = noise()
    crop = frame[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    pasted = blend_lower_face(frame, crop, box)
    inside = np.zeros(frame.shape[:2], bool)
    inside[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = lower_face_mask(*crop.shape[:2]) > 0
    assert np.array_equal(pasted[~inside], frame[~inside])
    assert np.abs(pasted.astype(int) - frame)[inside].max(initial=0) <= 1
    assert np.array_equal(overwrite_face(frame, crop, box), frame)


def test_the_blend_changes_the_mouth_and_not_the_eyes():
    frame, box = np.full((120, 160, 3), 200, np.uint8), FaceBox(30, 20, 110, 120)
    pasted = blend_lower_face(frame, np.zeros((96, 96, 3), np.uint8), box)
    assert (pasted[:60] == 200).all()  # above 0.42 of the box
    assert (pasted[92:100, 60:80] == 0).all()  # the mouth
    assert np.array_equal(pasted[:, :30], frame[:, :30])
    steps = np.abs(np.diff(pasted.astype(int), axis=0)).max(), np.abs(np.diff(pasted.astype(int), axis=1)).max()
    assert max(steps) <= 40  # no seam: the step of 200 is spread over several pixels
    assert (frame == 200).all()


def test_the_overwrite_equals_upstreams(shared: Path):
    with np.load(shared / "golden" / "wav2lip_compose.npz") as golden:
        patch = (golden["patch"].transpose(1, 2, 0) * 255).astype(np.uint8)
        for name in ("a", "b"):
            top, bottom, left, right = golden[f"box_{name}_y1y2x1x2"].tolist()
            pasted = overwrite_face(golden["frame"], patch, FaceBox(left, top, right, bottom))
            assert np.array_equal(pasted, golden[f"composed_{name}"])
