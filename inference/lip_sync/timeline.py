"""The length, the frame rate and the audio of a lip sync video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from inference.audio import count_frames, count_mel_columns, cut_window, upstream_window_starts
from inference.audio import window_start as start_of_window
from inference.lip_sync.options import DEFAULT_FPS, MAX_FPS, MIN_FPS, SyncOptions
from inference.media import OpenedMedia, VideoInfo
from inference.media.audio_convert import Samples
from inference.media.audio_spool import AudioSpool

# A video that declares this much more than is needed is not stored for a loop: a factor, and seconds besides.
DURATION_MARGIN, DURATION_MARGIN_S = 1.05, 1.0
LOWEST_SOURCE_FPS = 10.0  # of slideshows, GIFs and surveillance: below, the video is made at DEFAULT_FPS
SILENT_AUDIO = "silent_audio"


class SyncTimeline:
    """The length and frame rate of the output, and the audio of each frame."""

    def __init__(self, media: OpenedMedia, spool: AudioSpool, samples: Samples, options: SyncOptions) -> None:
        """Plan the output. samples: the audio as the networks take it, 16 kHz mono."""
        self.audio, self.samples = spool, samples
        self.fps = choose_rate(media.video, options.fps, keeps_slow=options.tail == "drop")
        rate = float(self.fps)
        starts = upstream_window_starts(count_mel_columns(len(samples)), rate) if options.tail == "drop" else None
        self.n_frames = len(starts) if starts is not None else count_frames(len(samples), rate)
        self._starts = starts
        self.is_rounded_down, self.primaries = not media.video.is_still, media.video.primaries
        self._offset = options.mel_offset_frames
        declared_s = media.video.video_s or 0
        self.is_covered = declared_s * rate > self.n_frames * DURATION_MARGIN + DURATION_MARGIN_S * rate

    def windows(self) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """Yield the (80, 16) mel of each frame."""
        for k in range(self.n_frames):
            start = start_of_window(k, float(self.fps), self._offset) if self._starts is None else self._starts[k]
            yield cut_window(self.samples, start)


def choose_rate(video: VideoInfo, requested: float | None, *, keeps_slow: bool = False) -> Fraction:
    """Return the requested frame rate, else the rate of the video: 25 if that is too low for a mouth to move by.

    keeps_slow: take a low rate as it is, as upstream does.
    """
    declared = video.fps if video.fps and not video.is_still else DEFAULT_FPS
    if declared < LOWEST_SOURCE_FPS:
        declared = max(declared, MIN_FPS) if keeps_slow else DEFAULT_FPS
    rate = min(declared, MAX_FPS) if requested is None else requested
    return Fraction(rate).limit_denominator(1001)


def audio_warnings(spool: AudioSpool, samples: Samples) -> tuple[str, ...]:
    """Return what the caller should know of the audio. samples: as the networks take it."""
    return spool.warnings if samples.any() else (*spool.warnings, SILENT_AUDIO)
