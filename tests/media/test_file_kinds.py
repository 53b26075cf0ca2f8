from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from support.video_files import make_image, make_wav, with_webp_chunk

from inference.errors import MediaTooLarge, UnsupportedMedia
from inference.media import MediaLimits, open_media
from inference.media.audio import read_audio
from inference.media.image_size import read_image_size

FRAME = np.full((40, 50, 3), 90, np.uint8)
# First bytes as the formats' specifications give them, and the words that must be in the message.
OTHER_KINDS = {
    "tiff": (b"II*\0\x08\0\0\0", "a TIFF"),
    "big-endian tiff": (b"MM\0*\0\0\0\x08", "a TIFF"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "a JPEG 2000 image"),
    "j2k": (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000 image"),
    "jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    "psd": (b"8BPS\0\1", "a Photoshop image"),
    "pdf": (b"%PDF-1.7\n", "a PDF document"),
    "zip": (b"PK\x03\x04\x14\0", "a ZIP archive"),
    "w64": (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", "a Wave64"),
    "wavpack": (b"wvpk" + bytes(8), "a WavPack file"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_kinds_that_are_not_taken_are_named(kind: str):
    head, words = OTHER_KINDS[kind]
    contents = head + bytes(range(256)) * 4
    with pytest.raises(UnsupportedMedia, match=f"is {words}.*; expected a video, an image"), open_media(contents):
        pass
    with pytest.raises(UnsupportedMedia, match=f"is {words}"):
        read_audio(contents, 16000)


def test_an_animated_webp_is_named():
    animated = with_webp_chunk(make_image(FRAME, "libwebp"), 0x02, b"ANIM", bytes(6))
    with pytest.raises(UnsupportedMedia, match="is an animated WebP image"), open_media(animated):
        pass
    with open_media(
        with_webp_chunk(make_image(FRAME, "libwebp"), 0x08, b"EXIF", b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    ) as media:
        assert media.video.is_still


@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp", "bmp"])
@pytest.mark.parametrize(
    "name", ["face.jpg", "FACE.JPEG", "face.png", "face.webp", "face.tiff", "face.tga", "face.mp4", "face"]
)
def test_an_image_is_opened_by_any_name(tmp_path: Path, codec: str, name: str):
    path = tmp_path / name
    path.write_bytes(make_image(FRAME, codec))
    with open_media(path) as media:
        assert media.video.is_still
        (clip,) = media.read_clips(25.0)
    assert clip.frames[0].shape == (40, 50, 3)


@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp", "bmp"])
def test_an_image_that_is_too_large_is_called_so(codec: str):
    contents = make_image(np.full((400, 600, 3), 90, np.uint8), codec)
    with (
        pytest.raises(MediaTooLarge, match="600x400 pixels; at most 100000 pixels"),
        open_media(contents, MediaLimits(max_frame_pixels=100_000)),
    ):
        pass


@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp", "bmp"])
def test_the_size_of_an_image_is_in_its_header(codec: str):
    contents = make_image(np.zeros((34, 58, 3), np.uint8), codec)
    assert read_image_size(io.BytesIO(contents)) == (58, 34)
    for n_bytes in range(25):
        assert read_image_size(io.BytesIO(contents[:n_bytes])) is None


def test_the_size_of_other_webp_images_is_in_their_first_chunk():
    extended = with_webp_chunk(make_image(np.zeros((34, 58, 3), np.uint8), "libwebp"), 0, b"XMP ", b"")
    assert read_image_size(io.BytesIO(extended)) == (58, 34)
    lossless = struct.pack("<I", 57 | 33 << 14)
    head = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + lossless + bytes(8)
    assert read_image_size(io.BytesIO(head)) == (58, 34)


def test_other_files_have_no_image_size():
    assert read_image_size(io.BytesIO(make_wav(0.1))) is None
    assert read_image_size(io.BytesIO(b"\xff\xd8" + b"\xff\xe0\0\2" * 5)) is None
