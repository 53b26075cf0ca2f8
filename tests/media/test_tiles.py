from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.heif_files import make_heif_grid, make_heif_image
from inference.errors import MediaTooLarge, UnsupportedMedia
from inference.media import MediaLimits, SandboxedDecoder, open_media
from inference.media.media_warnings import TRANSPARENT

# 120 x 150 pixels, as 2 x 3 tiles of 64: blocks of 30 x 30, so that a misplaced tile or a wrong turn shows.
BLOCKS = np.random.default_rng(1).integers(30, 226, (5, 4), np.uint8)
IMAGE = np.repeat(BLOCKS.repeat(30, 0).repeat(30, 1)[..., None], 3, axis=2)
EDITS = {  # of the pixels, for irot's quarter turns counter-clockwise and imir's axis
    (None, None): lambda pixels: pixels,
    (1, None): np.rot90,
    (2, None): lambda pixels: np.rot90(pixels, 2),
    (3, None): lambda pixels: np.rot90(pixels, 3),
    (None, 0): lambda pixels: pixels[::-1],
    (None, 1): lambda pixels: pixels[:, ::-1],
    (1, 1): lambda pixels: np.rot90(pixels)[:, ::-1],
}


def assert_shows(frame: np.ndarray, expected: np.ndarray) -> None:
    assert frame.shape == expected.shape
    difference = np.abs(frame.astype(int) - expected)
    assert np.median(difference) <= 3
    assert difference.mean() < 6  # edges of blocks ring


def only_frame(contents: bytes) -> np.ndarray:
    with open_media(contents) as media:
        assert media.video.is_still
        (clip,) = media.read_clips(25.0)
    (frame,) = clip.frames
    return frame


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("brand", ["heic", "avif"])
def test_a_grid_of_tiles_is_one_image(brand: str, edit: tuple[int | None, int | None]):
    contents = make_heif_grid(IMAGE, brand=brand, quarter_turns=edit[0], mirror_axis=edit[1])
    assert_shows(only_frame(contents), EDITS[edit](IMAGE))


@pytest.mark.parametrize("edit", EDITS)
def test_an_image_of_one_part_is_turned_alike(edit: tuple[int | None, int | None]):
    contents = make_heif_image(IMAGE, quarter_turns=edit[0], mirror_axis=edit[1])
    assert_shows(only_frame(contents), EDITS[edit](IMAGE))


@pytest.mark.parametrize("brand", ["heic", "avif"])
@pytest.mark.parametrize("tile", [None, 64])
def test_the_alpha_plane_of_an_image_is_laid_over_white(brand: str, tile: int | None):
    alpha = np.zeros(IMAGE.shape[:2], np.uint8)
    alpha[:, 60:] = 255
    make = make_heif_image if tile is None else make_heif_grid
    with open_media(make(IMAGE, brand=brand, alpha=alpha)) as media:
        (clip,) = media.read_clips(25.0)
        assert media.warnings == (TRANSPARENT,)
    (frame,) = clip.frames
    assert frame[:, :56].min() > 245
    assert_shows(frame[:, 64:], IMAGE[:, 64:])


@pytest.mark.parametrize("shrink", [2, 3])
def test_an_alpha_plane_of_another_size_is_scaled(shrink: int):
    alpha = np.full((150 // shrink, 120 // shrink), 255, np.uint8)
    alpha[:, : 60 // shrink] = 0
    frame = only_frame(make_heif_grid(IMAGE, alpha=alpha))
    assert frame[:, :56].min() > 245
    assert_shows(frame[:, 64:], IMAGE[:, 64:])


def test_a_grid_of_alpha_is_limited_like_the_image():
    contents = make_heif_image(IMAGE, alpha=np.zeros((100, 102), np.uint8))
    with open_media(contents, MediaLimits(max_frame_pixels=40_000)) as media:
        assert len(list(media.read_clips(25.0))) == 1
    large = make_heif_grid(IMAGE, alpha=np.zeros((301, 300), np.uint8))
    with (
        pytest.raises(MediaTooLarge, match=r"300x301 pixels; at most 40000"),
        open_media(large, MediaLimits(max_frame_pixels=40_000)),
    ):
        pass


def test_a_grid_is_decoded_in_the_sandbox():
    with SandboxedDecoder() as decoder, decoder.open(make_heif_grid(IMAGE)) as media:
        assert (media.video.width, media.video.height, media.video.is_still) == (120, 150, True)
        (clip,) = media.read_clips(25.0)
        assert_shows(clip.frames[0], IMAGE)


def test_a_grid_is_limited_as_a_whole():
    with (
        pytest.raises(MediaTooLarge, match=r"120x150 pixels; at most 10000"),
        open_media(make_heif_grid(IMAGE), MediaLimits(max_frame_pixels=10_000)),
    ):
        pass


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\0\0\2\1\0\x78\0\x96", b"\0\0\2\1\x78\0\0\x96"),  # a width that its tiles do not cover
        (b"\0\0\2\1\0\x78\0\x96", b"\0\0\2\1\0\x08\0\x96"),  # and one that needs half of them
    ],
)
def test_tiles_that_do_not_fit_are_refused(old: bytes, new: bytes):
    contents = make_heif_grid(IMAGE)
    assert contents.count(old) == 1
    with pytest.raises(UnsupportedMedia, match="damaged"):
        only_frame(contents.replace(old, new))


def test_a_grid_without_its_end_is_refused():
    contents = make_heif_grid(IMAGE)
    with pytest.raises(UnsupportedMedia, match=r"[0-5] of 6 parts .* truncated"):
        only_frame(contents[:-400])


def test_another_derived_image_is_named():
    contents = make_heif_grid(IMAGE).replace(b"grid\0", b"iovl\0")
    with pytest.raises(UnsupportedMedia, match="HEIF image of kind 'iovl'"):
        only_frame(contents)


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".avif", ".jpg", ""])
def test_a_grid_is_opened_by_any_name(tmp_path: Path, suffix: str):
    path = tmp_path / f"IMG_0001{suffix}"
    path.write_bytes(make_heif_grid(IMAGE))
    with open_media(path) as media:
        assert_shows(next(media.read_clips(25.0)).frames[0], IMAGE)
