"""The length, the frame rate and the audio of a lip sync video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from inference.audio import count_frames, count_mel_columns, cut_window, upstream_window_starts
from inference.audio import window_start as start_of_window
from inference.errors import InvalidRequest
from inference.lip_sync.audio_tracks import fit_audio
from inference.lip_sync.options import DEFAULT_FPS, MAX_FPS, MIN_FPS, SyncOptions
from inference.lip_sync.preprocess import FaceFrame
from inference.media import Clip, VideoInfo
from inference.media.audio_convert import Samples
from inference.media.audio_spool import AudioSpool
from inference.media.encode import AudioTrack

# A video that declares this much more than is needed is not stored for a loop: a factor, and seconds besides.
DURATION_MARGIN, DURATION_MARGIN_S = 1.05, 1.0
LOWEST_SOURCE_FPS = 10.0  # of slideshows, GIFs and surveillance: below, the video is made at DEFAULT_FPS


class SyncTimeline:
    """The length and frame rate of the output, and the audio of each frame.

    n_source: number of frames of the video at the output's rate, if the mode needs it. is_remapped: whether they are
    spread over the whole output. is_covered: whether the video is long enough, or declares so.
    """

    def __init__(
        self,
        video: VideoInfo,
        spool: AudioSpool,
        samples: Samples,
        options: SyncOptions,
        n_source: int | None = None,
    ) -> None:
        """Plan the output.

        samples: the audio as the networks take it, 16 kHz mono. n_source: needed if `needs_source_length`.
        """
        self.samples, self.n_source = samples, n_source
        self.fps = choose_output_rate(video, options)
        rate = float(self.fps)
        starts = upstream_window_starts(count_mel_columns(len(samples)), rate) if options.tail == "drop" else None
        n_audio = len(starts) if starts is not None else count_frames(len(samples), rate)
        self.n_frames = count_output_frames(n_audio, n_source, options)
        self.audio: AudioTrack = spool if n_source is None else fit_audio(spool, self.n_frames / self.fps)
        self.is_remapped = options.sync_mode == "remap" and n_source is not None
        self._starts = starts
        self.is_rounded_down, self.primaries = not video.is_still, video.primaries
        self._offset = options.mel_offset_frames
        declared_s = video.video_s or 0
        is_declared = declared_s * rate > self.n_frames * DURATION_MARGIN + DURATION_MARGIN_S * rate
        self.is_covered = is_declared or (n_source or 0) >= self.n_frames

    @property
    def n_needed(self) -> int:
        """Number of frames of the video that the output shows."""
        return self.n_frames if self.n_source is None else self.n_source

    def close(self) -> None:
        """Delete what the timeline has stored."""

    def mark_outside(self, face_frames: Iterable[FaceFrame]) -> Iterator[FaceFrame]:
        """Yield the frames of the output; those that do not speak without a box. Here all speak."""
        return iter(face_frames)

    def windows(self) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """Yield the (80, 16) mel of each frame; that of silence after the end of the audio."""
        for k in range(self.n_frames):
            start = start_of_window(k, float(self.fps), self._offset) if self._starts is None else self._starts[k]
            yield cut_window(self.samples, start)


def needs_source_length(video: VideoInfo, options: SyncOptions) -> bool:
    """Return whether the length of the output depends on that of the video. An image has no length."""
    return (bool(options.segments) or options.sync_mode in ("cut_off", "silence", "remap")) and not video.is_still


def check_not_still(video: VideoInfo, options: SyncOptions) -> None:
    """Raise InvalidRequest if the face is an image and an option does not apply to it."""
    if video.is_still and options.segments:
        raise InvalidRequest("segments: the face is an image, which has no length; expected a video")
    if video.is_still and options.active_speaker is not None and options.active_speaker.is_auto:
        raise InvalidRequest("active_speaker auto: the face is an image, which has no audio; expected a point or a box")


def count_source_frames(clips: Iterable[Clip]) -> int:
    """Return the number of frames of a video."""
    return sum(len(clip.frames) for clip in clips)


def count_output_frames(n_audio: int, n_source: int | None, options: SyncOptions) -> int:
    """Return the number of frames of the output.

    n_audio: frames that the audio lasts. n_source: those of the video; None if it does not matter.
    Source: sync.so/docs/developer-guides/sync-mode, "Behavior matrix".
    """
    if n_source is None or options.sync_mode == "remap":
        return n_audio
    return min(n_audio, n_source) if options.sync_mode == "cut_off" else max(n_audio, n_source)


def choose_output_rate(video: VideoInfo, options: SyncOptions) -> Fraction:
    """Return the frame rate of the output."""
    return choose_rate(video, options.fps, keeps_slow=options.tail == "drop")


def choose_rate(video: VideoInfo, requested: float | None, *, keeps_slow: bool = False) -> Fraction:
    """Return the requested frame rate, else the rate of the video: 25 if that is too low for a mouth to move by.

    keeps_slow: take a low rate as it is, as upstream does.
    """
    declared = video.fps if video.fps and not video.is_still else DEFAULT_FPS
    if declared < LOWEST_SOURCE_FPS:
        declared = max(declared, MIN_FPS) if keeps_slow else DEFAULT_FPS
    rate = min(declared, MAX_FPS) if requested is None else requested
    return Fraction(rate).limit_denominator(1001)
