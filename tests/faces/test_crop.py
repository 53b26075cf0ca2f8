import cv2
import numpy as np
import pytest

from inference.faces.crop import MEAN_FACE, crop_mouth, fit_similarity


def test_fit_recovers_a_known_similarity():
    points = np.array([[0, 0], [2, 0], [0, 1], [3, 4]], float)
    angle, scale, shift = 0.4, 2.5, (7, -3)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = fit_similarity(points, points @ rotation.T + shift)
    assert found == pytest.approx(np.column_stack([rotation, shift]), abs=1e-12)


def test_equal_points_are_refused():
    with pytest.raises(ValueError, match="one point"):
        fit_similarity(np.ones((51, 2)), MEAN_FACE)


def points_on_mean_face(scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.vstack([np.zeros((17, 2)), MEAN_FACE]) * scale + shift


def test_the_mean_face_is_cropped_unchanged():
    frame = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    crop = crop_mouth(frame, points_on_mean_face())
    assert np.array_equal(crop, cv2.resize(frame[139:219, 46:206], (128, 64)))


@pytest.mark.parametrize("scale", [2.0, 3.0, 4.3])
def test_large_faces_are_averaged(scale: float):
    side = round(256 * scale)
    checkerboard = np.indices((side, side)).sum(axis=0) % 2 * 255
    frame = np.repeat(checkerboard[..., None], 3, axis=2).astype(np.uint8)
    crop = crop_mouth(frame, points_on_mean_face(scale))
    assert crop.std() < 30  # the warp alone gives 60 or more
    assert crop.mean() == pytest.approx(127, abs=12)


@pytest.mark.parametrize("scale", [2.0, 3.0, 4.3])
def test_large_faces_keep_their_position(scale: float):
    small = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (256, 256, 3), np.uint8), (0, 0), 5)
    side = round(256 * scale)
    # pixel centres: small (x + .5) is at scale * (x + .5) in the large image
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    exact = side / 256
    crop = crop_mouth(large, points_on_mean_face(exact, (exact - 1) / 2))
    expected = crop_mouth(small, points_on_mean_face())
    assert np.abs(crop.astype(int) - expected).mean() < 1.5


def test_crops_equal_upstreams(shared):
    golden = np.load(shared / "golden" / "mouth_crop.npz")
    assert pytest.approx(golden["mean_face_256"], abs=1e-12) == MEAN_FACE
    for frame, points, affine, crop in zip(
        golden["frames"], golden["landmarks"], golden["affine"], golden["crop"], strict=True
    ):
        assert fit_similarity(points[17:], MEAN_FACE) == pytest.approx(affine[:2], abs=1e-8)
        assert np.array_equal(crop_mouth(frame, points), crop)


@pytest.mark.parametrize("seed", range(20))
def test_only_the_mouth_is_drawn_with_the_pixels_of_the_whole_face(monkeypatch: pytest.MonkeyPatch, seed: int):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (288, 360, 3), np.uint8)
    angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.4, 1.2)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.zeros((68, 2))
    points[17:] = MEAN_FACE @ rotation.T + rng.uniform(0, 60, 2)
    found = crop_mouth(frame, points)
    monkeypatch.setattr("inference.faces.crop.DRAWN_WIDTH", 256)
    monkeypatch.setattr("inference.faces.crop.DRAWN_HEIGHT", 256)
    np.testing.assert_array_equal(found, crop_mouth(frame, points))
