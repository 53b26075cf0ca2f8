"""Structural similarity of two images."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

WINDOW, SIGMA = 11, 1.5  # pixels, size and standard deviation of the Gaussian window of the statistics
STABILISERS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)  # constants that stabilise the ratio in flat regions


def ssim(one_bgr: Image, other_bgr: Image) -> float:
    """Return the structural similarity of two images in grey: 1 for equal images, 0 for unrelated ones.

    Both (H, W, 3) uint8 BGR of the same size, at least 11 pixels a side.
    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13 (2004), its constants and window.
    """
    one, other = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64) for image in (one_bgr, other_bgr))
    mean_one, mean_other = gaussian_mean(one), gaussian_mean(other)
    var_one, var_other = gaussian_mean(one * one) - mean_one**2, gaussian_mean(other * other) - mean_other**2
    covariance = gaussian_mean(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + STABILISERS[0]) / (mean_one**2 + mean_other**2 + STABILISERS[0])
    structure = (2 * covariance + STABILISERS[1]) / (var_one + var_other + STABILISERS[1])
    return float((luminance * structure).mean())


def gaussian_mean(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Gaussian mean at every pixel whose whole window is inside the image."""
    edge = WINDOW // 2
    whole = cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)
    return np.asarray(whole[edge:-edge, edge:-edge], np.float64)
