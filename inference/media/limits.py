"""Limits on untrusted media."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from inference.errors import MediaTooLarge, UnsupportedMedia

if TYPE_CHECKING:
    import av

FREE_SILENCE_S = 60.0  # in gaps of the audio
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
    # In gaps of the audio, beyond FREE_SILENCE_S: 10 bytes a second. Pauses in Opus take 20, silence in FLAC 4: so
    # gaps are no shorter way to an hour of audio.
    max_silence_s_per_byte: float = 0.1
    max_duration_s: float = 3600.0
    max_fps: float = 240.0  # frames decoded for each second of video
    min_side: int = 16  # pixels; smaller frames show no face

    def total_pixels_of(self, n_bytes: int) -> int:
        """Return how many pixels a file of this size may have, summed over frames."""
        return min(self.max_total_pixels, FREE_PIXELS + self.max_pixels_per_byte * n_bytes)

    def silence_s_of(self, n_bytes: int) -> float:
        """Return how many seconds of silence a file of this size may have where its timestamps leave gaps."""
        return FREE_SILENCE_S + self.max_silence_s_per_byte * n_bytes


class LimitCounter:
    """Counts decoded frames and pixels, used or not, and raises if a limit is exceeded."""

    def __init__(self, name: str, limits: MediaLimits, n_bytes: int) -> None:
        """n_bytes: size of the file, which limits its pixels."""
        self.n_frames = 0
        self.n_pixels = 0
        self._n_bytes = n_bytes
        self._max_total_pixels = limits.total_pixels_of(n_bytes)
        self._origin: Fraction | None = None
        self._elapsed_s = 0.0
        self._name = name
        self._limits = limits

    def count(self, frame: av.VideoFrame) -> None:
        """Count one more frame. Raises: MediaTooLarge, UnsupportedMedia."""
        limits = self._limits
        self.n_frames += 1
        self.n_pixels += frame.width * frame.height
        if min(frame.width, frame.height) < limits.min_side:
            raise UnsupportedMedia(
                f"{self._name}: a frame of {frame.width}x{frame.height} pixels; "
                f"at least {limits.min_side} on each side expected"
            )
        self.check_size(frame.width, frame.height)
        self._check_total()
        if self.n_frames > limits.max_fps * (self._elapsed_s + 1):
            raise MediaTooLarge(f"{self._name}: over {limits.max_fps:g} frames a second; that is the limit")

    def check_size(self, width: int, height: int) -> None:
        """Check the size of a frame, or of an image before it is composed. Raises: MediaTooLarge."""
        if width * height > self._limits.max_frame_pixels:
            raise MediaTooLarge(
                f"{self._name}: a frame of {width}x{height} pixels; "
                f"at most {self._limits.max_frame_pixels} pixels expected"
            )

    def count_pixels(self, n_pixels: int) -> None:
        """Count the pixels of a part of an image, or those by which a frame was enlarged. Raises: MediaTooLarge."""
        self.n_pixels += n_pixels
        self._check_total()

    def _check_total(self) -> None:
        if self.n_pixels > self._max_total_pixels:
            raise MediaTooLarge(
                f"{self._name}: over {self._max_total_pixels} pixels in {self.n_frames} frames; that is the limit "
                f"for a file of {self._n_bytes} bytes"
            )

    def check_time(self, start: Fraction, duration: Fraction) -> None:
        """Check how far the video reaches in time. Raises: MediaTooLarge."""
        if self._origin is None:
            self._origin = start
        self._elapsed_s = float(start - self._origin)
        if self._elapsed_s + float(duration) > self._limits.max_duration_s:
            raise MediaTooLarge(f"{self._name}: lasts over {self._limits.max_duration_s:g} s; that is the limit")
