"""How alike two pictures are to the eye."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

WINDOW, SIGMA = 11, 1.5  # px, of the Gaussian that statistics are taken under
STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)  # so that flat places count as alike


def ssim(one_bgr: Picture, other_bgr: Picture) -> float:
    """Structural similarity of two pictures in grey: 1 for the same, 0 for chance.

    Both (H, W, 3) uint8 BGR of the same size, 11 pixels a side at least.
    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13 (2004), its constants and window.
    """
    one, other = (cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float64) for picture in (one_bgr, other_bgr))
    mean_one, mean_other = smooth(one), smooth(other)
    var_one, var_other = smooth(one * one) - mean_one**2, smooth(other * other) - mean_other**2
    covariance = smooth(one * other) - mean_one * mean_other
    light = (2 * mean_one * mean_other + STABLE[0]) / (mean_one**2 + mean_other**2 + STABLE[0])
    structure = (2 * covariance + STABLE[1]) / (var_one + var_other + STABLE[1])
    return float((light * structure).mean())


def smooth(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Only where the whole window lies inside."""
    edge = WINDOW // 2
    whole = cv2.GaussianBlur(picture, (WINDOW, WINDOW), SIGMA)
    return np.asarray(whole[edge:-edge, edge:-edge], np.float64)
