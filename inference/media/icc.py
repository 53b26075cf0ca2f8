"""The primaries of an ICC profile, as cameras and image editors embed in JPEG, PNG, WebP and HEIC."""

from __future__ import annotations

import struct

import numpy as np

# Rows X, Y, Z of red, green and blue of sRGB, adapted to D50 as in every ICC profile. Source: IEC 61966-2-1, ICC.1.
SRGB_TO_PCS = np.array([(0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410)])
MAX_SRGB_DIFFERENCE = 0.02  # of a coefficient: profiles of sRGB differ by roundings
MAX_COEFFICIENT = 4.0  # known RGB spaces stay below 2
HEADER_BYTES, ENTRY_BYTES, XYZ_BYTES = 128, 12, 20
MAX_TAGS = 100
COLORANTS = (b"rXYZ", b"gXYZ", b"bXYZ")
Coefficients = tuple[tuple[float, ...], ...]


def primaries_of_icc(profile: bytes) -> Coefficients | None:
    """Return the matrix from linear light of an RGB profile to that of sRGB.

    Returns: None for sRGB, and for profiles of tables, of other colours than RGB, or invalid: they are shown as sRGB.
    """
    found = read_colorants(profile)
    if found is None:
        return None
    matrix = np.linalg.inv(SRGB_TO_PCS) @ found
    if np.abs(matrix - np.eye(3)).max() <= MAX_SRGB_DIFFERENCE or np.abs(matrix).max() > MAX_COEFFICIENT:
        return None
    return tuple(tuple(float(value) for value in row) for row in matrix)


def read_colorants(profile: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Return X, Y, Z (rows) of red, green and blue; None if the profile has none."""
    if len(profile) < HEADER_BYTES + 4 or profile[16:20] != b"RGB " or profile[36:40] != b"acsp":
        return None
    (n_tags,) = struct.unpack_from(">I", profile, HEADER_BYTES)
    columns: dict[bytes, tuple[float, ...]] = {}
    for i in range(min(n_tags, MAX_TAGS)):
        at = HEADER_BYTES + 4 + i * ENTRY_BYTES
        if at + ENTRY_BYTES > len(profile):
            break
        name, offset, size = struct.unpack_from(">4sII", profile, at)
        if name in COLORANTS and size >= XYZ_BYTES and offset + XYZ_BYTES <= len(profile):
            columns[name] = tuple(value / 65536 for value in struct.unpack_from(">3i", profile, offset + 8))
    if len(columns) < len(COLORANTS):
        return None
    return np.array([columns[name] for name in COLORANTS]).T
