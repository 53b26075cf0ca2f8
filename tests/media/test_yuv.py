from __future__ import annotations

import av
import numpy as np
import pytest
from support.coloured_video import PATCH, PATCHES, encode_planes, read_patches

from inference.media.colour import YuvMatrix
from inference.media.frame_colour import ColourConverter
from inference.media.yuv import planes_of, to_bgr, to_yuv420


def bars() -> np.ndarray:
    return np.repeat(np.repeat(PATCHES[None, :, ::-1], 64, 0), PATCH, 1).astype(np.uint8)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", [YuvMatrix.BT601, YuvMatrix.BT709, YuvMatrix.BT2020])
def test_levels_are_those_of_the_standards(matrix: YuvMatrix, is_full: bool):
    """Within half a level, and that of the coefficients."""
    samples = np.random.default_rng(22).integers(0, 256, (200, 3)) / 255
    planes = encode_planes(samples, matrix, is_full=is_full).astype(np.uint8)
    luma, of_blue, of_red = (np.repeat(plane[None], 2, 0) for plane in planes.T)
    found = to_bgr((np.repeat(luma, 2, 1), of_blue[:1], of_red[:1]), matrix, is_full=is_full)
    np.testing.assert_allclose(found[0, ::2, ::-1], samples * 255, atol=2.2)


@pytest.mark.parametrize("is_full", [False, True])
def test_greys_are_neutral(is_full: bool):
    luma = np.repeat(np.arange(256, dtype=np.uint8)[None], 2, 0)
    grey = np.full((1, 128), 128, np.uint8)
    for matrix in YuvMatrix:
        frame = to_bgr((luma, grey, grey), matrix, is_full=is_full)
        assert np.ptp(frame.astype(int), axis=2).max() == 0
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(2, 0)
    _, of_blue, of_red = planes_of(to_yuv420(levels))
    assert set(of_blue.ravel().tolist()) == set(of_red.ravel().tolist()) == {128}


def test_a_written_frame_is_bt709_of_limited_range():
    frame = to_yuv420(bars())
    assert (frame.colorspace, frame.color_range, frame.color_trc) == (1, 1, 1)
    expected = encode_planes(PATCHES / 255, 1, is_full=False)
    found = [plane[8, plane.shape[1] // 14 :: plane.shape[1] // 7] for plane in planes_of(frame)]
    np.testing.assert_allclose(np.array(found).T, expected, atol=1)


def test_untouched_frames_stay_as_they_are():
    """Colours neither move nor fade when a frame is read and written again and again."""
    rng = np.random.default_rng(22)
    small = rng.integers(60, 200, (150, 200, 3), np.uint8)
    first = again = to_yuv420(small.repeat(2, 0).repeat(2, 1))
    for _ in range(4):
        again = to_yuv420(to_bgr(planes_of(again), YuvMatrix.BT709, is_full=False))
    difference = again.to_ndarray().astype(int) - first.to_ndarray()
    assert abs(difference).max() <= 2
    assert abs(difference.mean()) < 0.02


@pytest.mark.parametrize("is_full", [False, True])
def test_greys_read_rounded_down_are_written_as_they_were(is_full: bool):
    """By read_clips, and again and again."""
    levels = np.arange(256) if is_full else np.arange(16, 236)
    first = again = grey_frame(levels.astype(np.uint8), is_full=is_full)
    for _ in range(3):
        read = ColourConverter({}, is_still=False).to_bgr(again, again.width, again.height)
        again = to_yuv420(read, is_rounded_down=True)
    luma = first.to_ndarray()[:2].astype(float)
    expected = np.round(luma * 219 / 255 + 16) if is_full else luma
    np.testing.assert_allclose(again.to_ndarray()[:2], expected, atol=1 if is_full else 0)


def grey_frame(levels: np.ndarray, *, is_full: bool) -> av.VideoFrame:
    """Return a yuv420p frame of columns of two pixels."""
    packed = np.full((24, 2 * len(levels)), 128, np.uint8)
    packed[:16] = levels.repeat(2)
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    frame.colorspace, frame.color_range = 1, 2 if is_full else 1
    return frame


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 48), (18, 17), (1921, 1081)])
def test_odd_sizes(width: int, height: int):
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, level in zip(frame.planes, (126, 128, 128), strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    found = to_bgr(planes_of(frame), YuvMatrix.BT601, is_full=False)
    assert found.shape == (height, width, 3)
    assert set(found.ravel().tolist()) == {128}


def test_patches_are_read_where_they_are():
    np.testing.assert_allclose(
        read_patches(to_bgr(planes_of(to_yuv420(bars())), YuvMatrix.BT709, is_full=False)), PATCHES, atol=1.5
    )
