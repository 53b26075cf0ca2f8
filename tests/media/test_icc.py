from __future__ import annotations

import numpy as np
import pytest
from support.coloured_video import P3_TO_PCS, make_profile

from inference.media.icc import SRGB_TO_PCS, primaries_of_icc


def test_display_p3_is_converted():
    found = np.array(primaries_of_icc(make_profile(P3_TO_PCS)))
    expected = [(1.2249, -0.2249, 0), (-0.0421, 1.0421, 0), (-0.0196, -0.0786, 1.0983)]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_srgb_stays_as_it_is():
    assert primaries_of_icc(make_profile(SRGB_TO_PCS + 0.0005)) is None


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        make_profile(P3_TO_PCS)[:140],
        make_profile(P3_TO_PCS)[:200],
        make_profile(P3_TO_PCS, space=b"CMYK"),
        make_profile(P3_TO_PCS, names=(b"A2B0", b"B2A0", b"wtpt")),
        make_profile(P3_TO_PCS * 100),
        make_profile(P3_TO_PCS)[:128] + b"\xff" * 400,
    ],
)
def test_other_and_broken_profiles_are_shown_as_srgb(profile: bytes):
    assert primaries_of_icc(profile) is None
