from __future__ import annotations

import struct

import numpy as np
import pytest
from support.video_files import make_image, make_video, with_display_matrix, with_orientation

from inference.media import open_media
from inference.media.orientation import UPRIGHT, Orientation, read_matrix

ONE = 1 << 16
# An upright frame of four grey patches in a portrait; each orientation stores it in another way.
UPRIGHT_PIXELS = np.kron(np.array([[40, 90], [150, 220]], np.uint8), np.ones((48, 32), np.uint8))
# EXIF's eight orientations, as what an encoder did to the upright image before it stored it.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: np.rot90,  # the camera lay on its left: stored turned counter-clockwise
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: np.rot90(pixels, -1),
}
# The display matrices (a, b, c, d) that undo them, as av_exif_orientation_to_matrix of FFmpeg's libavcodec/exif.c.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def as_bgr(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.ascontiguousarray(grey)[..., None], 3, axis=2)


def assert_upright(frame: np.ndarray) -> None:
    assert frame.shape == (96, 64, 3)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        patch = frame[row * 48 + 8 : row * 48 + 40, column * 32 + 8 : column * 32 + 24]
        assert abs(patch.mean() - UPRIGHT_PIXELS[row * 48, column * 32]) < 4, (row, column)


def first_frame(contents: bytes) -> np.ndarray:
    with open_media(contents) as media:
        return next(media.read_clips(25.0)).frames[0]


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp"])
def test_an_image_is_turned_and_mirrored_by_its_exif_tag(codec: str, number: int):
    stored = make_image(as_bgr(STORED[number](UPRIGHT_PIXELS)), codec)
    assert_upright(first_frame(with_orientation(stored, number)))


@pytest.mark.parametrize("number", STORED)
def test_a_video_is_turned_and_mirrored_by_its_display_matrix(number: int):
    stored = make_video([as_bgr(STORED[number](UPRIGHT_PIXELS))] * 3)
    assert_upright(first_frame(with_display_matrix(stored, *MATRICES[number])))


@pytest.mark.parametrize("number", STORED)
def test_a_display_matrix_undoes_how_pixels_are_stored(number: int):
    found = read_matrix(pack(*(value * ONE for value in MATRICES[number])))
    stored = as_bgr(STORED[number](UPRIGHT_PIXELS))
    assert np.array_equal(found.apply(stored), as_bgr(UPRIGHT_PIXELS))
    assert found.size_of(stored.shape[1], stored.shape[0]) == (64, 96)


def pack(a: int, b: int, c: int, d: int) -> bytes:
    return struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)


def test_angles_are_rounded_and_scales_ignored():
    assert read_matrix(pack(60_000, 20_000, -20_000, 60_000)) == UPRIGHT
    assert read_matrix(pack(10_000, 65_000, -65_000, 10_000)) == Orientation(is_transposed=True, is_mirrored=True)
    assert read_matrix(pack(2 * ONE, 0, 0, -3 * ONE)) == Orientation(is_flipped=True)


@pytest.mark.parametrize("packed", [b"", bytes(36), pack(ONE, ONE, ONE, ONE), pack(ONE, 0, 0, ONE)[:-1]])
def test_an_invalid_matrix_changes_nothing(packed: bytes):
    assert read_matrix(packed) == UPRIGHT
