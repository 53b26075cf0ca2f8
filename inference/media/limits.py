"""Limits on untrusted media."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaLimits:
    """Limits on untrusted media, checked while it is decoded.

    They apply to what is actually decoded, whatever the file's header declares.
    """

    max_bytes: int = 1 << 30  # size of the file
    max_total_pixels: int = 300_000_000_000  # summed over frames; an hour of 1080p at 30 fps is 224e9
    max_frame_pixels: int = 7680 * 4320  # one frame: 8K
    max_duration_s: float = 3600.0
    max_fps: float = 240.0  # frames decoded for each second of video
    min_side: int = 16  # pixels; smaller frames show no face
