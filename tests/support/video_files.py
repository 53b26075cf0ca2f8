"""Video and image files made by the tests."""

from __future__ import annotations

import io
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
) -> bytes:
    """Encode BGR frames. times: in seconds, for a variable rate. slices: per frame, for H.264."""
    rate = Fraction(fps)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        codec = CODECS[container]
        video = out.add_stream(codec, rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(crf), "slices": str(slices)} if codec == "libx264" else {"qscale": "2"}
        audio = out.add_stream("aac" if container in ("mp4", "matroska") else "mp2", rate=16000) if with_tone else None
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
    return buffer.getvalue()


def mux_tone(out, stream, seconds: float) -> None:
    n = int(16000 * seconds)
    wave = (0.2 * np.sin(2 * np.pi * 220 * np.arange(n) / 16000) * 32767).astype(np.int16)[None]
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


def make_image(frame: Frame, codec: str = "png") -> bytes:
    """Encode a PNG file, or with "mjpeg" a JPEG."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as out:
        stream = out.add_stream(codec, rate=1)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        out.mux(stream.encode(image.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode())
    return buffer.getvalue()


def rotate_by_metadata(mp4: bytes, degrees: int) -> bytes:
    """Return the MP4 with a display matrix that rotates it clockwise by 90, 180 or 270 degrees."""
    one = 1 << 16
    cos, sin = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30]
    at = mp4.index(b"tkhd") + 4 + 40  # version 0: 4 flags, 20 times and ids, 16 more before the matrix
    packed = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    return mp4[:at] + packed + mp4[at + 36 :]


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
