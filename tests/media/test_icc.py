from __future__ import annotations

import struct

import numpy as np
import pytest

from inference.media.icc import SRGB_TO_PCS, primaries_of_icc

# Display P3, adapted to D50, as Apple's profile has it.
P3_TO_PCS = np.array([(0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407)])


def make_profile(colorants: np.ndarray, space: bytes = b"RGB ", names: tuple[bytes, ...] = (b"rXYZ", b"gXYZ", b"bXYZ")):
    """Return an ICC profile of three colorants, the columns of (3, 3)."""
    header = bytearray(128)
    header[16:20], header[36:40] = space, b"acsp"
    start = 128 + 4 + 12 * 3
    table = struct.pack(">I", 3) + b"".join(
        struct.pack(">4sII", name, start + 20 * i, 20) for i, name in enumerate(names)
    )
    values = [b"XYZ \0\0\0\0" + struct.pack(">3i", *np.round(column * 65536).astype(int)) for column in colorants.T]
    return bytes(header) + table + b"".join(values)


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
