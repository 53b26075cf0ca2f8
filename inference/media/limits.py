"""How much media may be asked of us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaLimits:
    """Bounds on untrusted media, checked while the bytes are decoded.

    They hold for what is really decoded, whatever the file's header says of itself.
    """

    max_bytes: int = 1 << 30  # size of the file
    max_total_pixels: int = 300_000_000_000  # summed over frames; an hour of 1080p at 30 fps is 224e9
    max_frame_pixels: int = 7680 * 4320  # one picture: 8K
    max_duration_s: float = 3600.0
    max_fps: float = 240.0  # frames decoded for each second of video
    min_side: int = 16  # pixels; below this there is nothing to see
