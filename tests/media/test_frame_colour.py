from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from support.coloured_video import P3_TO_PCS, PATCH, PATCHES, make_patches, make_profile, read_patches, shown_patches
from support.video_files import make_image

from inference.media import Frame, open_media
from inference.media.encode import write_video
from inference.media.frame_colour import ColourConverter
from inference.media.media_warnings import TONE_MAPPED_HLG, TONE_MAPPED_PQ
from inference.media.yuv import to_yuv420

MATRICES = {"bt601": 6, "bt709": 1, "bt2020": 9}
TRANSFERS = {"PQ": 16, "HLG": 18}
IS_GREY = np.ptp(PATCHES, axis=1) == 0
HD, SD = 720, 576
TINT = 1e-6  # levels between the colours of a grey


def first_frame(source: bytes) -> tuple[Frame, tuple[str, ...]]:
    with open_media(source) as media:
        frames = [frame for clip in media.read_clips(25) for frame in clip.frames]
        return frames[0], media.warnings


def write(path: Path, frame: Frame, *, is_rounded_down: bool = False) -> bytes:
    with write_video(path, 25, is_rounded_down=is_rounded_down) as writer:
        writer.add(frame)
    return path.read_bytes()


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_tagged_videos_go_out_as_they_came_in(matrix: int, is_full: bool, tmp_path: Path):
    frame, warnings = first_frame(make_patches(matrix, is_full=is_full))
    np.testing.assert_allclose(read_patches(frame), PATCHES, atol=3)
    np.testing.assert_allclose(read_patches(frame)[IS_GREY], PATCHES[IS_GREY], atol=1)
    assert np.ptp(read_patches(frame)[IS_GREY], axis=1).max() < TINT
    shown = shown_patches(write(tmp_path / "out.mp4", frame, is_rounded_down=True))
    np.testing.assert_allclose(shown, PATCHES, atol=4)
    assert np.ptp(shown[IS_GREY], axis=1).max() < TINT
    np.testing.assert_allclose(shown[IS_GREY], PATCHES[IS_GREY], atol=0.6)
    assert warnings == ()


@pytest.mark.parametrize(("height", "matrix"), [(SD, 6), (HD, 1)])
def test_untagged_videos_are_601_up_to_576_lines_and_709_above(height: int, matrix: int):
    frame, _ = first_frame(make_patches(matrix, height=height, tagged=False))
    np.testing.assert_allclose(read_patches(frame), PATCHES, atol=3)


def test_a_wide_untagged_video_is_709():
    frame, _ = first_frame(make_patches(1, levels=np.tile(PATCHES / 255, (6, 1)), tagged=False))
    np.testing.assert_allclose(read_patches(frame, 42)[:7], PATCHES, atol=3)


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p", "nv12", "yuyv422", "yuv420p10le", "yuva420p"])
def test_every_layout_of_samples(pixel_format: str):
    bars = np.repeat(np.repeat(PATCHES[None, :, ::-1], 64, 0), PATCH, 1).astype(np.uint8)
    stored = to_yuv420(bars).reformat(format=pixel_format, src_colorspace=1, dst_colorspace=1)
    frame = ColourConverter({}, is_still=False).to_bgr(stored, stored.width, stored.height)
    np.testing.assert_allclose(read_patches(frame), PATCHES, atol=4)


@pytest.mark.parametrize("matrix", [2, 5, 6])
def test_sd_is_read_as_by_ffmpeg_and_opencv(matrix: int):
    """The networks were trained with these levels, bit by bit."""
    frame = to_yuv420(np.random.default_rng(22).integers(0, 256, (48, 64, 3), np.uint8))
    frame.colorspace, frame.color_range = matrix, 0
    expected = frame.to_ndarray(format="bgr24")
    np.testing.assert_array_equal(ColourConverter({}, is_still=False).to_bgr(frame, 64, 48), expected)


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_images_are_read_as_they_are(codec: str):
    bars = np.repeat(np.repeat(PATCHES[None, :, ::-1], 720, 0), PATCH, 1).astype(np.uint8)
    frame, _ = first_frame(make_image(bars, codec))
    np.testing.assert_allclose(read_patches(frame), PATCHES, atol=1 if codec == "png" else 4)


def test_a_photo_in_display_p3_is_converted_to_srgb():
    """As phones take them. The red of sRGB is (234, 51, 35) in Display P3."""
    bars = np.repeat(np.repeat(np.array([[(35, 51, 234), (128, 128, 128)]], np.uint8), 64, 0), PATCH, 1)
    image = make_image(bars)
    packed = zlib.compress(make_profile(P3_TO_PCS))
    chunk = b"iCCP" + b"p3\0\0" + packed
    at = image.index(b"IDAT") - 4
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    frame, warnings = first_frame(image[:at] + framed + image[at:])
    np.testing.assert_allclose(read_patches(frame, 2), [(255, 0, 0), (128, 128, 128)], atol=4)
    assert warnings == ()


def test_grey_images_have_the_full_range():
    levels = np.repeat(np.array([[0, 40, 128, 255]], np.uint8), PATCH, 1).repeat(64, 0)
    grey = av.VideoFrame.from_ndarray(levels, format="gray")
    frame = ColourConverter({}, is_still=True).to_bgr(grey, grey.width, grey.height)
    np.testing.assert_array_equal(frame, np.repeat(levels[..., None], 3, 2))


@pytest.mark.parametrize("kind", TRANSFERS)
def test_hdr_is_tone_mapped_and_reported(kind: str):
    """What is darker than 100 cd/m2 looks as in SDR; white and what is brighter stay apart."""
    sdr = np.array([(60, 60, 60), (128, 128, 128), (180, 180, 180), (150, 110, 90)]) / 255
    nits = np.concatenate([203 * sdr**2.4, [[203.0] * 3, [800.0] * 3]])
    frame, warnings = first_frame(
        make_patches(9, levels=encode_light(nits, kind), bits=10, transfer=TRANSFERS[kind], primaries=9, codec="ffv1")
    )
    found = read_patches(frame, len(nits))
    greys = [60, 128, 180]
    np.testing.assert_allclose(found[:3], np.repeat(greys, 3).reshape(3, 3), atol=2)
    assert np.ptp(found[[0, 1, 2, 4, 5]], axis=1).max() <= 1
    assert found[3, 0] > 150 > found[3, 2]  # in BT.2020, these numbers are a stronger colour
    assert 225 < found[4, 0] < 236
    assert found[5, 0] > 250
    assert warnings == ({"PQ": TONE_MAPPED_PQ, "HLG": TONE_MAPPED_HLG}[kind],)


def encode_light(nits: np.ndarray, kind: str) -> np.ndarray:
    """Return levels (N, 3), 0..1, of light in cd/m2, by SMPTE ST 2084 or by BT.2100's HLG for a display of 1000."""
    if kind == "PQ":
        root = (nits / 10000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    luminance = nits @ np.array([[0.2627], [0.678], [0.0593]])
    scene = nits / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def test_bt2020_in_sdr_gets_the_primaries_of_bt709():
    """A red of BT.709 is a paler red of BT.2020."""
    red = np.array([[0.6274, 0.0691, 0.0164]]) ** (1 / 2.4)
    frame, warnings = first_frame(make_patches(9, levels=np.tile(red, (4, 1)), primaries=9, transfer=1))
    np.testing.assert_allclose(read_patches(frame, 4), np.tile([255, 0, 0], (4, 1)), atol=20)
    assert read_patches(frame, 4)[0, 0] > 252
    assert warnings == ()


def test_written_videos_are_tagged(tmp_path: Path):
    write(tmp_path / "out.mp4", np.full((64, 64, 3), 128, np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
    assert b"colrnclx" + bytes([0, 1, 0, 1, 0, 1, 0]) in (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize(("tag", "kept"), [(1, 1), (2, 1), (5, 5), (6, 6), (9, 1)])
def test_the_primaries_of_sd_are_kept(tag: int, kept: int, tmp_path: Path):
    """Only those of wide gamuts are converted."""
    with open_media(make_patches(6, primaries=tag)) as media:
        primaries = media.video.primaries
    assert primaries == kept
    with write_video(tmp_path / "out.mp4", 25, primaries=primaries) as writer:
        writer.add(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.color_primaries == kept
