"""Films made out of a clip: the same pictures at another rate, size, length or turn."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from inference.media import Frame, open_media

FPS = 25
CRF = 0  # H.264 without loss: what is measured should be the change, not the encoder
CLOCK = Fraction(1, 90000)
MATRIX_AT = 44  # bytes from the tag "tkhd" to its display matrix


def frames_of(clip: Path) -> list[Frame]:
    """All frames at 25 fps, BGR."""
    with open_media(clip) as media:
        return [frame for part in media.read_clips(FPS) for frame in part.frames]


def encode(
    frames: Iterable[tuple[Fraction, Frame]], out: Path, rate: Fraction, *, crf: int = CRF, preset: str = "veryfast"
) -> Path:
    """H.264 in MP4; each frame with the second it is shown at."""
    with av.open(out, "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = CLOCK
        for i, (at, frame) in enumerate(frames):
            if i == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
            picture.pts, picture.time_base = round(at / CLOCK), CLOCK
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return out


def as_it_is(frames: list[Frame], out: Path, crf: int = CRF) -> Path:
    """At the original's rate; crf: H.264's quality, 23 being its own default."""
    return encode(((Fraction(i, FPS), frame) for i, frame in enumerate(frames)), out, Fraction(FPS), crf=crf)


def at_fps(frames: list[Frame], out: Path, fps: Fraction) -> Path:
    """At another constant rate, each frame the nearest of the original."""
    n_frames = round(len(frames) * fps / FPS)
    return encode(((i / fps, nearest(frames, i / fps)) for i in range(n_frames)), out, fps)


def at_variable_rate(frames: list[Frame], out: Path, rng: np.random.Generator) -> Path:
    """Frames 20 to 50 ms apart, irregularly, as a telephone films; each the nearest of the original."""
    times, at = [], 0.0
    while at < len(frames) / FPS:
        times.append(Fraction(at).limit_denominator(1000))
        at += rng.uniform(0.02, 0.05)
    return encode(((t, nearest(frames, t)) for t in times), out, Fraction(30))


def nearest(frames: list[Frame], at: Fraction) -> Frame:
    return frames[min(round(at * FPS), len(frames) - 1)]


def turned(frames: list[Frame], out: Path) -> Path:
    """Lying on its side, with metadata that says so."""
    as_it_is([np.rot90(frame) for frame in frames], out)
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    contents = bytearray(out.read_bytes())
    at = contents.index(b"tkhd") + MATRIX_AT
    contents[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    out.write_bytes(contents)
    return out


def at_1080p(frames: list[Frame], out: Path) -> Path:
    """1080 rows high, of the same shape."""
    height, width = frames[0].shape[:2]
    size = (round(width * 1080 / height / 2) * 2, 1080)
    return as_it_is([resize(frame, size) for frame in frames], out)


def resize(frame: Frame, size: tuple[int, int]) -> Frame:
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def with_black_frames(frames: list[Frame], out: Path, rng: np.random.Generator, n_black: int = 10) -> Path:
    black = set(rng.choice(len(frames), n_black, replace=False).tolist())
    return as_it_is([np.zeros_like(f) if i in black else f for i, f in enumerate(frames)], out)


def repeated(frames: list[Frame], out: Path, seconds: float) -> Path:
    """Forwards and backwards again and again, so that nothing jumps."""
    there_and_back = frames + frames[-2:0:-1]
    shown = ((Fraction(i, FPS), there_and_back[i % len(there_and_back)]) for i in range(round(seconds * FPS)))
    return encode(shown, out, Fraction(FPS), crf=23, preset="ultrafast")
