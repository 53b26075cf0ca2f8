"""Encoders of H.264: x264 on the CPU, NVENC on an NVIDIA GPU, which has never been run here.

The encoder of NVENC sees only frames that this process made, never the bytes of a caller. A deployment or a command
chooses it, a request cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from inference.errors import DeviceUnavailable, InvalidRequest

X264, NVENC, AUTO = "libx264", "h264_nvenc", "auto"
NAMES = (AUTO, X264, NVENC)
NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # NVIDIA; WSL 2
CRF = 18  # x264's constant rate factor: nearly indistinguishable from the source
# NVENC's constant quality, on the scale of x264's factor; one step above the default preset, as it is fast anyway.
NVENC_OPTIONS = {"preset": "p5", "rc": "vbr", "cq": str(CRF), "b": "0"}
OPENCV_AVX512 = 13  # OpenCV's number for AVX-512, which its Python package does not name
# With AVX-512, x264 encoded the same frames differently in one of ten runs (due to the macroblock tree's costs); with
# AVX2 alone, identically in all of 420 runs, and in the same time.
DETERMINISTIC = "asm=AVX2"
PROBE_SIDE, N_PROBED = 256, 2  # px, frames


@dataclass(frozen=True)
class VideoEncoder:
    """An encoder of FFmpeg and its options."""

    codec: str
    options: dict[str, str] = field(default_factory=dict)


def make_x264() -> VideoEncoder:
    options = {"crf": str(CRF), "preset": "veryfast"}
    if cv2.checkHardwareSupport(OPENCV_AVX512):  # to request AVX2 on a CPU without it would crash
        options["x264-params"] = DETERMINISTIC
    return VideoEncoder(X264, options)


def make_nvenc() -> VideoEncoder:
    return VideoEncoder(NVENC, NVENC_OPTIONS)


def check_encoder(name: str) -> str:
    """Return the name of an encoder; it is an error, before any work, if NVENC was chosen and cannot be used.

    Raises: InvalidRequest if there is no such name, DeviceUnavailable.
    """
    if name not in NAMES:
        raise InvalidRequest(f"encoder {name!r}: expected one of {', '.join(NAMES)}")
    if name == NVENC and (fault := nvenc_fault(PROBE_SIDE, PROBE_SIDE)) is not None:
        raise DeviceUnavailable(f"encoder {NVENC}: {fault}; choose {AUTO} or {X264}")
    return name


def choose_encoder(name: str, width: int, height: int) -> VideoEncoder:
    """Return the encoder for frames of this size; `auto` is NVENC if it encodes them, else x264.

    Raises: DeviceUnavailable if NVENC was chosen and does not encode them.
    """
    if name == X264:
        return make_x264()
    fault = nvenc_fault(width, height)
    if fault is None:
        return make_nvenc()
    if name == NVENC:
        raise DeviceUnavailable(f"encoder {NVENC}: {fault}; choose {AUTO} or {X264}")
    return make_x264()


def nvenc_fault(width: int, height: int) -> str | None:
    """Return why NVENC does not encode frames of this size; None if it does. FFmpeg is asked only if there is a GPU."""
    if not any(path.exists() for path in NVIDIA_DEVICES):
        return "this machine has no NVIDIA GPU"
    return probe_nvenc(width, height)


@cache
def probe_nvenc(width: int, height: int) -> str | None:
    """Encode some grey frames. Returns: why that failed, None if it did not.

    A GPU need not have an encoder, its driver's libnvidia-encode may be missing (as in containers without
    NVIDIA_DRIVER_CAPABILITIES=video), and a size or one more session may be too much for it.
    """
    encoder = make_nvenc()
    grey = av.VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 128, np.uint8), "yuv420p")
    try:
        context = av.CodecContext.create(encoder.codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = encoder.options
        packets = []
        for i in range(N_PROBED):
            grey.pts, grey.time_base = i, context.time_base
            packets += context.encode(grey)
        packets += context.encode(None)
    except (OSError, ValueError) as err:  # PyAV's errors are OSErrors, too; ValueError: FFmpeg without NVENC
        reason = getattr(err, "strerror", None) or str(err)
        return f"FFmpeg could not encode {width}x{height} with it ({reason})"
    found = sum(packet.size > 0 for packet in packets)
    return None if found == N_PROBED else f"FFmpeg encoded {found} of {N_PROBED} frames of {width}x{height} with it"
