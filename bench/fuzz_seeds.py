"""Small intact files of every common format, and of kinds that take a way of their own through the decoder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np

from bench.heif_files import make_heif_grid, make_heif_image

WIDTH, HEIGHT, N_FRAMES, RATE = 64, 48, 6, 16000
# Containers with their codecs of video and audio.
VIDEOS = (
    ("mp4", "libx264", "aac"),
    ("mov", "mpeg4", "pcm_s16le"),
    ("matroska", "libx264", "flac"),
    ("webm", "libvpx-vp9", "libopus"),
    ("avi", "mpeg4", "mp2"),
    ("mpeg", "mpeg1video", "mp2"),
    ("mpegts", "libx264", "aac"),
    ("flv", "libx264", "aac"),
    ("gif", "gif", None),
    ("apng", "apng", None),
)
IMAGES = ("png", "mjpeg", "libwebp", "bmp")
AUDIOS = (
    ("wav", "pcm_s16le"),
    ("mp3", "libmp3lame"),
    ("flac", "flac"),
    ("ogg", "libopus"),
    ("ogg", "flac"),
    ("ipod", "aac"),
    ("adts", "aac"),
    ("aiff", "pcm_s16be"),
    ("ac3", "ac3"),
)
PIXEL_FORMATS = {"gif": "rgb8", "apng": "rgb24", "png": "rgb24", "mjpeg": "yuvj420p", "bmp": "bgr24"}
CODEC_RATES = {"libopus": 48000, "ac3": 48000}
X264_PARAMETERS = "no-asm=1"  # its assembly also reads what it did not write, so files would differ
REPEATABLE = {"fflags": "+bitexact"}  # no random numbers, dates and versions


def make_seeds() -> Mapping[str, bytes]:
    """Return small intact files by name."""
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    seeds = {f"{container} {video}": make_video(container, video, audio) for container, video, audio in VIDEOS}
    seeds |= {f"image {codec}": make_video("image2pipe", codec, None, n_frames=1) for codec in IMAGES}
    seeds |= {f"{container} {codec}": make_audio(container, codec) for container, codec in AUDIOS}
    alpha = image[..., 0]
    return seeds | {
        "heic grid": make_heif_grid(image, quarter_turns=1),
        "heic grid alpha": make_heif_grid(image, alpha=alpha, thumbnail=False),
        "heic": make_heif_image(image, mirror_axis=1),
        "avif": make_heif_image(image, brand="avif", alpha=alpha),
        "mpegts interlaced": make_video("mpegts", "libx264", None, is_interlaced=True),
        "mp4 mirrored": mirror(make_video("mp4", "libx264", "aac")),
        "webm alpha": make_video("webm", "libvpx-vp9", None, pixel_format="yuva420p"),
        "image png alpha": make_video("image2pipe", "png", None, n_frames=1, pixel_format="rgba"),
    }


def mirror(mp4: bytes) -> bytes:
    """Return the MP4 with a display matrix that mirrors its video left to right."""
    at = mp4.index(b"tkhd") + 4 + 40  # version 0: 4 flags, 20 times and ids, 16 more before the matrix
    return mp4[:at] + (-1 << 16).to_bytes(4, "big", signed=True) + mp4[at + 4 :]


def make_video(
    container: str,
    codec: str,
    audio_codec: str | None,
    n_frames: int = N_FRAMES,
    *,
    is_interlaced: bool = False,
    pixel_format: str | None = None,
) -> bytes:
    buffer = io.BytesIO()
    options = {"x264-params": X264_PARAMETERS + ":tff=1" * is_interlaced}
    with av.open(buffer, "w", format=container, options=REPEATABLE) as out:
        video = out.add_stream(codec, rate=25, options=options if codec == "libx264" else {})
        assert isinstance(video, av.VideoStream)
        video.thread_count = 1  # more make other files each time
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixel_format or PIXEL_FORMATS.get(codec, "yuv420p")
        audio = add_tone_stream(out, audio_codec) if audio_codec else None
        for number in range(n_frames):
            pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
            image = av.VideoFrame.from_ndarray(pixels.repeat(8, 0).repeat(8, 1), format="rgb24")
            frame = image.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None:
            encode_tone(out, audio, n_frames / 25)
    return buffer.getvalue()


def make_audio(container: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=REPEATABLE) as out:
        encode_tone(out, add_tone_stream(out, codec), 0.2)
    return buffer.getvalue()


def add_tone_stream(out: av.container.OutputContainer, codec: str) -> av.AudioStream:
    stream = out.add_stream(codec, rate=CODEC_RATES.get(codec, RATE), layout="mono")
    assert isinstance(stream, av.AudioStream)
    return stream


def encode_tone(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    times = np.arange(round(RATE * seconds)) / RATE
    tone = (8000 * np.sin(2 * np.pi * 220 * times)).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    resampler = av.AudioResampler(stream.format.name, "mono", stream.rate, stream.codec_context.frame_size or None)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode())
