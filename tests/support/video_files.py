"""Video and image files made by the tests."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
CODECS = {
    "matroska": "libx264",
    "mp4": "libx264",
    "mov": "libx264",
    "avi": "mpeg4",
    "mpeg": "mpeg1video",
    "webm": "libvpx-vp9",
    "mpegts": "libx264",
    "flv": "libx264",
    "nut": "mpeg4",
}


def make_video(
    frames: Sequence[Frame],
    fps: Fraction | int = 25,
    *,
    container: str = "mp4",
    times: Sequence[Fraction] | None = None,
    crf: int = 18,
    pixel_aspect: Fraction | None = None,
    with_tone: bool = False,
    slices: int = 1,
    subtitle_at_s: int | None = None,
) -> bytes:
    """Encode BGR frames. times: in seconds, for a variable rate. slices: per frame, for H.264.

    subtitle_at_s: when a subtitle of one second starts; None for none.
    """
    rate = Fraction(fps)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        codec = CODECS[container]
        video = out.add_stream(codec, rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(crf), "slices": str(slices)} if codec == "libx264" else {"qscale": "2"}
        audio = out.add_stream("aac" if container in ("mp4", "matroska") else "mp2", rate=16000) if with_tone else None
        subtitles = None if subtitle_at_s is None else add_subtitles(out)
        if pixel_aspect:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        clock = Fraction(1, 90000) if times else 1 / rate
        video.codec_context.time_base = clock
        for i, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
            image.pts = round(times[i] / clock) if times else i
            image.time_base = clock
            out.mux(video.encode(image))
        out.mux(video.encode())
        if audio is not None:
            mux_tone(out, audio, seconds=float(len(frames) / rate))
        if subtitles is not None and subtitle_at_s is not None:
            mux_subtitle(out, subtitles, subtitle_at_s)
    return buffer.getvalue()


SUBTITLE_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def add_subtitles(out):
    stream = out.add_stream("mov_text" if out.format.name == "mp4" else "subrip")
    stream.codec_context.subtitle_header = SUBTITLE_HEADER  # both encoders want the one of ASS
    return stream


def mux_subtitle(out, stream, start_s: int) -> None:
    text = b"words"
    packet = av.Packet(len(text).to_bytes(2, "big") + text if out.format.name == "mp4" else text)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = start_s * 1000
    packet.duration = 1000
    out.mux(packet)


def mux_tone(out, stream, seconds: float) -> None:
    write_tone(out, stream, seconds, 0.2)


def write_tone(out, stream, seconds: float, level: float) -> None:
    """Encode 220 Hz at 16 kHz. level: 0 to 1."""
    n = int(16000 * seconds)
    wave = (level * np.sin(2 * np.pi * 220 * np.arange(n) / 16000) * 32767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
    frame.sample_rate = 16000
    frame.pts = 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode())


def make_wav(seconds: float = 1.0) -> bytes:
    """Return a WAV file of 220 Hz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as out:
        mux_tone(out, out.add_stream("pcm_s16le", rate=16000, layout="mono"), seconds)
    return buffer.getvalue()


IMAGE_PIXEL_FORMATS = {"png": "rgb24", "mjpeg": "yuvj420p", "libwebp": "yuv420p", "bmp": "bgr24"}


def make_image(frame: Frame, codec: str = "png") -> bytes:
    """Encode a PNG file, or with "mjpeg" a JPEG, with "libwebp" a WebP, with "bmp" a BMP."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as out:
        stream = out.add_stream(codec, rate=1)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = IMAGE_PIXEL_FORMATS[codec]
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        out.mux(stream.encode(image.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode())
    return buffer.getvalue()


def encode_rgba(pixels: Frame, codec: str = "png", pix_fmt: str = "rgba") -> bytes:
    """Encode (H, W, 4) RGBA as a PNG file, or with "libwebp" and "bgra" as a lossless WebP."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as out:
        stream = out.add_stream(codec, rate=1, options={"lossless": "1"} if codec == "libwebp" else {})
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pix_fmt
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)))
        out.mux(stream.encode())
    return buffer.getvalue()


def rotate_by_metadata(mp4: bytes, degrees: int) -> bytes:
    """Return the MP4 with a display matrix that rotates it clockwise by 90, 180 or 270 degrees."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return with_display_matrix(mp4, cos, sin, -sin, cos)


def with_display_matrix(mp4: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Return the MP4 with a display matrix that maps a stored pixel (x, y) to (a x + c y, b x + d y)."""
    one = 1 << 16
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    at = mp4.index(b"tkhd") + 4 + 40  # version 0: 4 flags, 20 times and ids, 16 more before the matrix
    packed = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    return mp4[:at] + packed + mp4[at + 36 :]


def with_orientation(image: bytes, number: int) -> bytes:
    """Return a JPEG, PNG or WebP image with EXIF's tag of orientation, and the tag of a maker as phones write it."""
    maker = b"Maker\0"
    tags = [
        (0x10F, 2, len(maker), 8 + 2 + 2 * 12 + 4),
        (0x112, 3, 1, number),
    ]  # little-endian: a short lies at the left
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    tiff += bytes(4) + maker
    if image.startswith(b"\xff\xd8"):
        exif = b"Exif\0\0" + tiff
        return image[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + image[2:]
    if image.startswith(b"\x89PNG"):
        chunk = b"eXIf" + tiff
        packed = struct.pack(">I", len(tiff)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return image[:33] + packed + image[33:]  # after the header
    return with_webp_chunk(image, 0x08, b"EXIF", tiff)


def with_webp_chunk(image: bytes, flag: int, kind: bytes, content: bytes) -> bytes:
    """Return a simple WebP image in the extended format, with one more chunk, and the flag that announces it."""
    with av.open(io.BytesIO(image)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    header = bytes([flag, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", len(header)) + header + image[12:]
    chunks += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


N_STRIPES = 8


def numbered_frames(n_frames: int, width: int = 64, height: int = 48) -> list[Frame]:
    """Return frames that encode their number (up to 255) in eight stripes, bright for a 1, lowest bit leftmost."""
    frames = []
    for number in range(n_frames):
        bits = [number >> i & 1 for i in range(N_STRIPES)]
        row = np.repeat(np.where(bits, 200, 50), width // N_STRIPES).astype(np.uint8)
        frames.append(np.broadcast_to(row[None, :, None], (height, len(row), 3)).copy())
    return frames


def read_number(frame: Frame) -> int:
    stripes = frame.reshape(frame.shape[0], N_STRIPES, -1).mean(axis=(0, 2))
    return sum(1 << i for i, level in enumerate(stripes) if level > 125)
