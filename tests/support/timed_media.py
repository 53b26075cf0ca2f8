"""Media whose audio starts late, has gaps or a clock of its own, with a flash and a click to measure by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from support.video_files import Frame

RATE = 48_000
CLICK_S = 0.02  # length of the click: a tone of 1 kHz
CODECS = {
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "aac"),
    "matroska": ("libx264", "libopus"),
    "webm": ("libvpx", "libopus"),
    "mpegts": ("libx264", "aac"),
}


def add_flash(frames: Sequence[Frame], at: int) -> list[Frame]:
    """Return the frames with a white one at this index."""
    return [np.full_like(frame, 255) if i == at else frame for i, frame in enumerate(frames)]


def grey_frames(n_frames: int) -> list[Frame]:
    return [np.full((96, 128, 3), 90, np.uint8)] * n_frames


def make_click(length_s: float, click_s: float) -> np.ndarray:
    """Return silence with a click: (1, N) int16 at 48 kHz."""
    samples = np.zeros((1, round(length_s * RATE)), np.int16)
    first = round(click_s * RATE)
    samples[0, first : first + round(CLICK_S * RATE)] = 25_000 * np.sin(
        np.arange(round(CLICK_S * RATE)) * 2 * np.pi / 48
    )
    return samples


def make_timed_media(
    container: str,
    frames: Sequence[Frame],
    samples: np.ndarray,
    *,
    fps: int = 25,
    video_start_s: float = 0,
    missing_s: Sequence[tuple[float, float]] = (),
    jumps_s: Sequence[tuple[float, float]] = (),
) -> bytes:
    """Encode frames (may be none) and (1, N) int16 audio at 48 kHz; packets keep their own time.

    video_start_s: timestamp of the first frame. missing_s: spans of time whose audio packets are left out, as if the
    microphone was off. jumps_s: times of the audio from which on its clock is ahead, and by how much.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        packets = encode_frames(out, CODECS[container][0], frames, fps, video_start_s) if frames else []
        audio = encode_samples(out, CODECS[container][1], samples)
        for packet in audio:
            at_s = float(packet.pts * packet.time_base)
            if not any(first <= at_s < last for first, last in missing_s):
                shift = sum(by_s for from_s, by_s in jumps_s if at_s >= from_s)
                packet.pts = packet.dts = packet.pts + round(shift / packet.time_base)
                packets.append(packet)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return buffer.getvalue()


def encode_frames(out, codec: str, frames: Sequence[Frame], fps: int, start_s: float) -> list[av.Packet]:
    video = out.add_stream(codec, rate=fps)
    video.height, video.width = frames[0].shape[:2]
    video.pix_fmt = "yuv420p"
    video.options = {"bf": "0"} if codec == "libx264" else {"deadline": "realtime", "cpu-used": "8", "b": "2M"}
    video.codec_context.time_base = Fraction(1, 1000)
    packets = []
    for i, frame in enumerate(frames):
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        image.pts, image.time_base = round((start_s + i / fps) * 1000), Fraction(1, 1000)
        packets += video.encode(image)
    return [*packets, *video.encode()]


def encode_samples(out, codec: str, samples: np.ndarray) -> list[av.Packet]:
    audio = out.add_stream(codec, rate=RATE, layout="mono")
    resampler = av.AudioResampler(format=audio.format.name, layout="mono", rate=RATE)
    packed = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    packed.sample_rate, packed.pts, packed.time_base = RATE, 0, Fraction(1, RATE)
    packets = []
    for piece in [*resampler.resample(packed), *resampler.resample(None)]:
        packets += audio.encode(piece)
    return [*packets, *audio.encode()]


def flash_of(source: bytes | Path) -> float:
    """Return the time of the brightest frame, as a player shows it."""
    with av.open(opened(source)) as container:
        levels = {float(frame.time): frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)}
    return max(levels, key=lambda at_s: levels[at_s])


def click_of(source: bytes | Path) -> float:
    """Return the time at which the click starts, as a player plays it."""
    with av.open(opened(source)) as container:
        for frame in container.decode(audio=0):
            levels = np.abs(frame.to_ndarray().astype(float)).max(axis=0)
            loud = np.flatnonzero(levels > (8000 if frame.format.name.startswith("s16") else 0.25))
            if len(loud):
                return float(frame.time) + loud[0] / frame.sample_rate
    raise AssertionError("no click")


def opened(source: bytes | Path) -> io.BytesIO | str:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)
