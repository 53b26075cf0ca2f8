from __future__ import annotations

import numpy as np
import pytest

from inference.media.colour import BT2020_TO_BT709, Colour, YuvMatrix
from inference.media.tone_map import compress, hlg_to_nits, nits_to_pq, pq_to_nits, to_sdr

PQ = Colour(YuvMatrix.BT2020, is_full=False, hdr="PQ", to_bt709=BT2020_TO_BT709)


def test_the_curves_are_those_of_bt2100():
    """Values of ITU-R BT.2408, table 1 and section 2."""
    np.testing.assert_allclose(
        nits_to_pq(np.array([0.0, 100, 203, 1000, 10000])), [0, 0.508, 0.581, 0.752, 1], atol=6e-4
    )
    np.testing.assert_allclose(pq_to_nits(np.array([0.508, 0.581, 0.752])), [100, 203, 1000], rtol=6e-3)
    np.testing.assert_allclose(hlg_to_nits(np.array([[0.75] * 3, [1.0] * 3])), [[203] * 3, [1000] * 3], rtol=5e-3)


def test_the_eetf_keeps_the_dark_and_compresses_the_bright():
    nits = np.array([0, 1, 20, 90, 150, 203, 500, 1000.0])
    found = compress(nits, 1000)
    np.testing.assert_allclose(found[:4], nits[:4], rtol=1e-3)
    assert (np.diff(found) > 0).all()
    assert found[-1] == pytest.approx(203, rel=1e-3)


def test_content_no_brighter_than_sdr_stays_as_it_is():
    nits = np.array([1.0, 100, 203])
    np.testing.assert_allclose(compress(nits, 203), nits)


def test_greys_are_neutral_and_ordered():
    ramp = np.repeat(np.linspace(0, 1, 200)[:, None], 3, 1)
    found = to_sdr(ramp, PQ)
    assert np.ptp(found, axis=1).max() < 1e-4
    assert (np.diff(found[:, 0]) >= 0).all()
    assert found[0, 0] == 0
    assert found[-1, 0] == pytest.approx(1, abs=1e-3)


def test_colours_outside_bt709_are_clipped_not_wrapped():
    found = to_sdr(np.eye(3), PQ)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 1, 2])
