from __future__ import annotations

import numpy as np
import pytest

from training.avatar.real_clips import measure_gaps, scale_to_rendered


def test_gaps_of_real_lips_are_shares_of_their_width():
    lips = np.zeros((2, 20, 2), np.float32)
    lips[:, 6, 0] = 0.2  # 72 px of 360 between the corners
    lips[1, [19, 18, 17], 1] = 0.125  # 36 px of 288
    assert measure_gaps(lips) == pytest.approx([0, 0.5])


def test_real_gaps_are_scaled_to_rendered_ones():
    gaps = np.linspace(0, 1, 101).astype(np.float32)
    (scaled,) = scale_to_rendered([gaps])
    assert scaled[15] == pytest.approx(0, abs=1e-6)
    assert scaled[90] == pytest.approx(0.87, abs=1e-6)
    assert scaled[:15].max() == 0
