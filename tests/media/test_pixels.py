from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from support.video_files import encode_rgba, make_video

from inference.errors import MediaTooLarge, UnsupportedMedia
from inference.media import MediaLimits, SandboxedDecoder, open_media
from inference.media.media_warnings import RESIZED, TRANSPARENT
from inference.media.pixels import FrameConverter, fit, letterbox


def all_frames(contents: bytes, **limits: int) -> tuple[list[np.ndarray], tuple[str, ...]]:
    with open_media(contents, MediaLimits(**limits)) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
        return frames, media.warnings


def test_enlarged_frames_count_as_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.media.limits.FREE_PIXELS", 0)
    large, small = np.full((256, 512, 3), 200, np.uint8), np.full((32, 32, 3), 200, np.uint8)
    contents = make_video([large], container="mpegts") + make_video([small] * 20, container="mpegts")
    n_pixels = 256 * 512 + 20 * 32 * 32
    with pytest.raises(MediaTooLarge, match=r"pixels in \d+ frames"):
        all_frames(contents, max_total_pixels=2 * n_pixels)
    frames, _ = all_frames(contents, max_total_pixels=22 * 256 * 512)
    assert {frame.shape for frame in frames} == {large.shape}


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("png", "rgba"), ("png", "rgba64be"), ("libwebp", "bgra"), ("png", "ya8")]
)
def test_transparent_parts_are_white(codec: str, pix_fmt: str):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :16] = (255, 0, 255, 0)  # a hidden colour
    pixels[:, 16:32] = (0, 0, 0, 128)
    pixels[:, 32:] = (90, 90, 90, 255)
    (frame,), warnings = all_frames(encode_rgba(pixels, codec, pix_fmt))
    assert warnings == (TRANSPARENT,)
    assert np.abs(frame[:, :16].astype(int) - 255).max() <= 1
    assert np.abs(frame[:, 16:32].astype(int) - 127).max() <= 1
    assert np.abs(frame[:, 32:].astype(int) - 90).max() <= 1


def test_an_opaque_alpha_channel_changes_nothing():
    pixels = np.full((32, 48, 4), 255, np.uint8)
    pixels[..., :3] = (200, 100, 50)
    (frame,), warnings = all_frames(encode_rgba(pixels))
    assert warnings == ()
    assert (frame == (50, 100, 200)).all()


def test_a_pixel_format_that_cannot_be_converted_is_refused(monkeypatch: pytest.MonkeyPatch):
    def fail(converter: FrameConverter, frame: av.VideoFrame) -> None:
        frame.reformat(format="x2rgb10be")  # swscale has no such output

    monkeypatch.setattr(FrameConverter, "convert", fail)
    with pytest.raises(UnsupportedMedia, match="cannot be decoded"):
        all_frames(make_video([np.zeros((32, 48, 3), np.uint8)] * 2))


def test_a_video_that_turns_keeps_its_aspect():
    wide, tall = np.full((64, 128, 3), 200, np.uint8), np.full((128, 64, 3), 200, np.uint8)
    tall[48:80] = 60  # a square of 32 in the middle
    tall[:, :16] = tall[:, 48:] = 200
    turns = make_video([wide] * 20, container="mpegts") + make_video([tall] * 20, container="mpegts")
    frames, warnings = all_frames(turns)
    assert warnings == (RESIZED,)
    assert {frame.shape for frame in frames} == {(64, 128, 3)}
    assert abs(frames[0].mean() - 200) < 3
    last = frames[-1]  # 32 x 64 pixels between black bars
    assert last[:, :46].max() < 8
    assert last[:, 82:].max() < 8
    assert abs(last[4:20, 50:78].mean() - 200) < 4
    assert abs(last[27:37, 59:69].mean() - 60) < 8  # the square: 16 x 16


def test_a_size_fits_with_its_aspect():
    assert fit(1920, 1080, 640, 640) == (640, 360)
    assert fit(10_000, 1, 100, 100) == (100, 1)
    assert fit(3, 4, 64, 64) == (48, 64)


def test_a_frame_that_fills_its_size_is_not_copied():
    pixels = np.zeros((4, 6, 3), np.uint8)
    assert letterbox(pixels, 6, 4) is pixels
    assert letterbox(pixels + 9, 9, 5)[0, 1:7].min() == 9


def make_alpha_video(pixels: np.ndarray, n_frames: int, container: str, codec: str, pix_fmt: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(
            codec, rate=25, options={"profile": "4"} if codec == "prores_ks" else {"auto-alt-ref": "0"}
        )
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pix_fmt
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_the_alpha_of_a_webm_is_laid_over_white(codec: str):
    pixels = np.full((96, 128, 4), 120, np.uint8)
    pixels[:, :64] = (200, 0, 200, 0)
    pixels[:, 64:, 3] = 255
    contents = make_alpha_video(pixels, 12, "webm", codec, "yuva420p")
    with SandboxedDecoder() as decoder, decoder.open(contents) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
        assert media.warnings == (TRANSPARENT,)
    assert len(frames) == 12
    for frame in frames:
        assert frame[:, :56].min() > 245
        assert abs(frame[:, 72:].mean() - 120) < 5


def test_many_frames_with_alpha_fit_into_the_memory_of_the_sandbox():
    pixels = np.full((96, 128, 4), 120, np.uint8)
    contents = make_alpha_video(pixels, 60, "mov", "prores_ks", "yuva444p10le")
    with SandboxedDecoder() as decoder, decoder.open(contents) as media:
        assert sum(len(clip.frames) for clip in media.read_clips(25.0)) == 60
        assert media.warnings == (TRANSPARENT,)
