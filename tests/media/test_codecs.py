"""Videos in the codecs and wrappings of phones, cameras, browsers and editors, and images in all their kinds."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from support.video_files import numbered_frames, read_number

from inference.media import open_media

N_FRAMES = 30
SIZE = (96, 64)  # all of the codecs take it
QUALITY = {"qscale": "2", "crf": "10"}


def encode(codec: str, container: str, pixels: str, size: tuple[int, int], options: dict[str, str]) -> bytes:
    """Encode numbered frames at 25 a second. size: (width, height)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as out:
        video = out.add_stream(codec, rate=25, options=QUALITY)
        (video.width, video.height), video.pix_fmt = size, pixels
        for i, frame in enumerate(numbered_frames(N_FRAMES, *size)):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
            image.pts, image.time_base = i, Fraction(1, 25)
            out.mux(video.encode(image))
        out.mux(video.encode())
    return buffer.getvalue()


def numbers_in(source: bytes) -> list[int]:
    with open_media(source) as media:
        return [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames]


@pytest.mark.parametrize(
    ("codec", "container", "pixels", "size"),
    [
        ("libx264", "mp4", "yuv444p", SIZE),
        ("libx264", "mpegts", "yuv420p", SIZE),
        ("libx264", "flv", "yuv420p", SIZE),
        ("libx264", "h264", "yuv420p", SIZE),
        ("libx265", "mp4", "yuv420p10le", SIZE),
        ("libsvtav1", "mp4", "yuv420p", SIZE),
        ("libvpx", "webm", "yuv420p", SIZE),
        ("prores_ks", "mov", "yuv422p10le", SIZE),
        ("mjpeg", "avi", "yuvj420p", SIZE),
        ("mpeg2video", "vob", "yuv420p", SIZE),
        ("mpeg2video", "mxf", "yuv422p", SIZE),
        ("mpeg4", "avi", "yuv420p", SIZE),
        ("h263", "3gp", "yuv420p", (176, 144)),
        ("dvvideo", "dv", "yuv420p", (720, 576)),
        ("wmv2", "asf", "yuv420p", SIZE),
        ("ffv1", "matroska", "yuv420p", SIZE),
    ],
)
def test_every_codec_is_read(codec: str, container: str, pixels: str, size: tuple[int, int]):
    assert numbers_in(encode(codec, container, pixels, size, {})) == list(range(N_FRAMES))


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("libvpx", "webm", {"live": "1"}),
    ],
)
def test_a_recording_without_its_length_is_read(codec: str, container: str, options: dict[str, str]):
    assert numbers_in(encode(codec, container, "yuv420p", SIZE, options)) == list(range(N_FRAMES))


@pytest.mark.parametrize("kind", ["CMYK", "L", "P", "progressive", "1", "RGB"])
@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_every_kind_of_image_is_read(kind: str, size: tuple[int, int]):
    """Pillow writes what FFmpeg's encoders do not: CMYK and progressive JPEG, PNG of a palette and of one bit."""
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = (250, 250, 250) if kind in ("L", "1") else (250, 40, 40)
    image, buffer = pillow.fromarray(pixels), io.BytesIO()
    if kind in ("CMYK", "progressive", "RGB"):
        is_progressive = kind == "progressive"
        image.convert("CMYK" if kind == "CMYK" else "RGB").save(buffer, "JPEG", quality=95, progressive=is_progressive)
    else:
        (image.quantize() if kind == "P" else image.convert(kind)).save(buffer, "PNG")
    with open_media(buffer.getvalue()) as media:
        (frame,) = [frame for clip in media.read_clips(25) for frame in clip.frames]
    assert frame.shape == (size[1], size[0], 3)
    found = frame[size[1] // 2, [5, size[0] - 6]].astype(int)  # BGR, left and right
    assert np.abs(found - pixels[size[1] // 2, [5, size[0] - 6], ::-1]).max() <= 12
