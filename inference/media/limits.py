"""Limits on untrusted media."""

from __future__ import annotations

from dataclasses import dataclass

FREE_PIXELS = 500_000_000  # summed over frames: 15 frames of 8K, or 10 s of 1080p


@dataclass(frozen=True)
class MediaLimits:
    """Limits on untrusted media, checked while it is decoded.

    They apply to what is actually decoded, whatever the file's header declares.
    """

    max_bytes: int = 1 << 30  # size of the file
    max_total_pixels: int = 300_000_000_000  # summed over frames; an hour of 1080p at 30 fps is 224e9
    # Beyond the first FREE_PIXELS, so that a small file takes little time; a still face at 1080p has at most 5000.
    max_pixels_per_byte: int = 10_000
    max_frame_pixels: int = 7680 * 4320  # one frame: 8K
    max_duration_s: float = 3600.0
    max_fps: float = 240.0  # frames decoded for each second of video
    min_side: int = 16  # pixels; smaller frames show no face

    def total_pixels_of(self, n_bytes: int) -> int:
        """Return how many pixels a file of this size may have, summed over frames."""
        return min(self.max_total_pixels, FREE_PIXELS + self.max_pixels_per_byte * n_bytes)
