"""Variants of a clip: the same frames at another rate, size, length or orientation."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from inference.media import Frame, open_media

FPS = 25
LOSSLESS_CRF = 0  # of H.264: the change should be measured, not the encoder
TIME_BASE = Fraction(1, 90000)
ONE = 1 << 16  # in the display matrix
MATRIX_OFFSET = 44  # bytes from the tag "tkhd" to its display matrix


def read_frames(clip: Path) -> list[Frame]:
    """Decode all frames at 25 fps, BGR."""
    with open_media(clip) as media:
        return [frame for part in media.read_clips(FPS) for frame in part.frames]


def encode_frames(
    frames: Iterable[tuple[Fraction, Frame]],
    out: Path,
    rate: Fraction,
    *,
    crf: int = LOSSLESS_CRF,
    preset: str = "veryfast",
) -> Path:
    """Encode H.264 in MP4. frames: (presentation time in seconds, BGR frame)."""
    with av.open(out, "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        for i, (time_s, frame) in enumerate(frames):
            if i == 0:
                stream.height, stream.width = frame.shape[:2]
            video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
            video_frame.pts, video_frame.time_base = round(time_s / TIME_BASE), TIME_BASE
            container.mux(stream.encode(video_frame))
        container.mux(stream.encode())
    return out


def reencode(frames: list[Frame], out: Path, crf: int = LOSSLESS_CRF) -> Path:
    """Encode at the original rate. crf: quality of H.264, whose own default is 23."""
    return encode_frames(((Fraction(i, FPS), frame) for i, frame in enumerate(frames)), out, Fraction(FPS), crf=crf)


def change_fps(frames: list[Frame], out: Path, fps: Fraction) -> Path:
    """Encode at another constant rate; each frame is the nearest one of the original."""
    n_frames = round(len(frames) * fps / FPS)
    return encode_frames(((i / fps, nearest_frame(frames, i / fps)) for i in range(n_frames)), out, fps)


def make_variable_rate(frames: list[Frame], out: Path, rng: np.random.Generator) -> Path:
    """Encode frames at irregular intervals of 20 to 50 ms, as phones do; each is the nearest one of the original."""
    times, time_s = [], 0.0
    while time_s < len(frames) / FPS:
        times.append(Fraction(time_s).limit_denominator(1000))
        time_s += rng.uniform(0.02, 0.05)
    return encode_frames(((t, nearest_frame(frames, t)) for t in times), out, Fraction(30))


def nearest_frame(frames: list[Frame], time_s: Fraction) -> Frame:
    return frames[min(round(time_s * FPS), len(frames) - 1)]


def rotate_by_metadata(frames: list[Frame], out: Path) -> Path:
    """Encode rotated frames, with a display matrix that rotates them back."""
    reencode([np.rot90(frame) for frame in frames], out)
    return set_display_matrix(out, (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30))  # a quarter turn clockwise


def set_display_matrix(path: Path, matrix: tuple[int, ...]) -> Path:
    """Overwrite the display matrix of an MP4's first track: nine numbers, 16.16 but the last column, which is 2.30."""
    contents = bytearray(path.read_bytes())
    start = contents.index(b"tkhd") + MATRIX_OFFSET
    contents[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(contents)
    return path


def scale_to_1080p(frames: list[Frame], out: Path) -> Path:
    """Scale to 1080 rows with the same aspect ratio."""
    height, width = frames[0].shape[:2]
    size = (round(width * 1080 / height / 2) * 2, 1080)
    return reencode([resize_frame(frame, size) for frame in frames], out)


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Resize to (width, height)."""
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def add_black_frames(frames: list[Frame], out: Path, rng: np.random.Generator, n_black: int = 10) -> Path:
    """Replace random frames by black ones."""
    black = set(rng.choice(len(frames), n_black, replace=False).tolist())
    return reencode([np.zeros_like(f) if i in black else f for i, f in enumerate(frames)], out)


def repeat_frames(frames: list[Frame], out: Path, seconds: float) -> Path:
    """Play the frames forwards and backwards for so many seconds, without a jump."""
    period = frames + frames[-2:0:-1]
    timed = ((Fraction(i, FPS), period[i % len(period)]) for i in range(round(seconds * FPS)))
    return encode_frames(timed, out, Fraction(FPS), crf=23, preset="ultrafast")
