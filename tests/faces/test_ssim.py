from __future__ import annotations

import numpy as np
import pytest

from inference.faces.ssim import ssim


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 96, 3), np.uint8)


def test_equal_images_score_one_and_unrelated_ones_zero():
    assert ssim(noise(1), noise(1)) == pytest.approx(1)
    assert abs(ssim(noise(1), noise(2))) < 0.05
    assert ssim(noise(1), 255 - noise(1)) < -0.9


def test_flat_images_by_hand():
    """Without structure only the luminance counts: (2ab + c) / (a^2 + b^2 + c)."""
    one, other = (np.full((20, 20, 3), level, np.uint8) for level in (100, 150))
    c = (0.01 * 255) ** 2
    assert ssim(one, other) == pytest.approx((2 * 100 * 150 + c) / (100**2 + 150**2 + c), abs=1e-9)


def test_more_noise_scores_lower():
    image = np.repeat(np.repeat(noise(3)[::8, ::8], 8, axis=0), 8, axis=1)
    rng = np.random.default_rng(0)
    found = [
        ssim(image, np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)) for sigma in (2, 8, 30)
    ]
    assert found == sorted(found, reverse=True)
    assert 0.9 < found[0] < 1
