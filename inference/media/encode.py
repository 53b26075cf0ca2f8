"""Writing of videos: H.264 with AAC in MP4, complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, ColorTrc

from inference.atomic_write import atomic_file
from inference.errors import InvalidRequest, StorageError
from inference.media.audio_spool import to_audio_frame
from inference.media.colour import BT709_PRIMARIES, YuvMatrix, kept_primaries
from inference.media.frames import Frame
from inference.media.video_encoders import X264, choose_encoder
from inference.media.yuv import to_yuv420

VIDEO_TIME_BASE = Fraction(1, 90000)  # exact to 11 microseconds for every usual frame rate
AUDIO_BIT_RATE = 96_000  # bits a second of each channel: ample for speech
INTRA_ONLY = {"g": "1", "bf": "0"}  # encoder options: every frame a key frame
SUFFIXES = (".mp4", ".mov", ".mkv")


class AudioTrack(Protocol):
    """Audio to be written: an `AudioBuffer` or an `AudioSpool`. Its length is in samples of one channel."""

    rate: int
    n_channels: int

    def __len__(self) -> int: ...

    def read(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """Return samples start..end-1: (n, channels)."""


class VideoWriter:
    """An MP4 being written. Made by `write_video`."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        fps: Fraction,
        audio: AudioTrack | None,
        *,
        is_seekable: bool,
        is_rounded_down: bool,
        primaries: int,
        encoder: str,
    ) -> None:
        self._container, self._encoder = container, encoder
        self._fps = fps
        self._is_seekable, self._is_rounded_down = is_seekable, is_rounded_down
        self._primaries = kept_primaries(primaries)
        self._video: av.video.stream.VideoStream | None = None
        self._track = audio
        self._last_s = Fraction(-1)
        self._audio = add_audio(container, audio) if audio is not None else None
        self._n_written = 0  # audio samples of each channel

    def add(self, frame: Frame, at_s: Fraction | None = None) -> None:
        """Encode the next frame: (H, W, 3) uint8 BGR of sRGB, with H and W even and the same for all frames.

        at_s: its timestamp; by default it follows the last frame at the frame rate.
        """
        video = self._video = self._video or self._add_video(frame)
        at_s = self._last_s + 1 / self._fps if at_s is None and self._last_s >= 0 else at_s or Fraction(0)
        if at_s <= self._last_s:
            raise ValueError(f"a frame at {float(at_s):g} s after one at {float(self._last_s):g} s")
        self._last_s = at_s
        image = to_yuv420(frame, is_rounded_down=self._is_rounded_down)
        image.pts, image.time_base = round(at_s / VIDEO_TIME_BASE), VIDEO_TIME_BASE
        self._container.mux(video.encode(image))
        self._add_audio_until(at_s)

    def finish(self) -> None:
        """Write what the encoders still hold."""
        if self._video is None:
            raise ValueError("a video without a frame")
        self._container.mux(self._video.encode())
        self._add_audio_until(None)
        if self._audio is not None:
            self._container.mux(self._audio.encode())

    def _add_video(self, frame: Frame) -> av.video.stream.VideoStream:
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            raise ValueError(f"frames of {width}x{height} pixels; even numbers expected")
        encoder = choose_encoder(self._encoder, width, height)
        options = encoder.options | (INTRA_ONLY if self._is_seekable else {})
        video = self._container.add_stream(encoder.codec, rate=self._fps, options=options)
        assert isinstance(video, av.video.stream.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        context = video.codec_context
        context.time_base = VIDEO_TIME_BASE
        # Written into the stream and into MP4's `colr`: without them, players guess by the size.
        context.colorspace, context.color_range = YuvMatrix.BT709, ColorRange.MPEG
        context.color_primaries, context.color_trc = self._primaries, ColorTrc.BT709
        return video

    def _add_audio_until(self, at_s: Fraction | None) -> None:
        """Encode audio up to a time, so that audio and video are interleaved in the file; None: all of it."""
        if self._track is None or self._audio is None:
            return
        n_total = len(self._track)
        end = n_total if at_s is None else min(n_total, round(at_s * self._track.rate))
        if end > self._n_written:
            frame = to_audio_frame(self._track.read(self._n_written, end), self._track.rate, self._n_written)
            frame.time_base = Fraction(1, self._track.rate)
            self._container.mux(self._audio.encode(frame))
            self._n_written = end


def add_audio(container: av.container.OutputContainer, track: AudioTrack) -> av.audio.stream.AudioStream:
    audio: av.audio.stream.AudioStream = container.add_stream("aac", rate=track.rate)
    audio.layout = "mono" if track.n_channels == 1 else "stereo"
    audio.bit_rate = AUDIO_BIT_RATE * track.n_channels
    return audio


class AudioBuffer:
    """Mono audio in memory: samples (N,) float32, -1..1, or int16, at `rate` a second."""

    n_channels = 1

    def __init__(self, samples: npt.NDArray[np.float32] | npt.NDArray[np.int16], rate: int) -> None:
        self.samples, self.rate = samples, rate

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """Return samples start..end-1: (n, 1) int16."""
        samples = self.samples[start:end, None]
        levels = samples if samples.dtype == np.int16 else np.clip(samples, -1, 1) * 32767
        return levels.astype(np.int16)


@contextmanager
def write_video(
    path: Path,
    fps: float | Fraction,
    audio: AudioTrack | None = None,
    *,
    is_seekable: bool = False,
    is_rounded_down: bool = False,
    primaries: int = BT709_PRIMARIES,
    encoder: str = X264,
) -> Iterator[VideoWriter]:
    """Write a video to `path` frame by frame: `writer.add(frame)`.

    is_seekable: make every frame a key frame, for `FrameReader`; the file is about three times larger.
    is_rounded_down: the frames were read from a video by `read_clips`, which rounds down; each level is written as half
    of one more, so that greys are those of the source. primaries: `VideoInfo.primaries` of that video. encoder: auto,
    libx264 or h264_nvenc; see `video_encoders`.
    The video appears at `path` when it is complete; if anything fails, nothing is left behind.

    Raises: InvalidRequest if the suffix is not .mp4, .mov or .mkv; StorageError if the video cannot be written;
    DeviceUnavailable if the GPU does not encode it.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidRequest(f"{path.name}: cannot write this kind of file; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        found = "is a directory" if path.is_dir() else "its folder does not exist"
        raise InvalidRequest(f"{path}: {found}; expected a file to write")
    rate = Fraction(fps).limit_denominator(1001)
    try:
        # An absolute path: in a bare name, FFmpeg takes what precedes a colon for a protocol.
        with (
            atomic_file(path.absolute()) as partial,
            av.open(str(partial), "w", options={"movflags": "+faststart"}) as container,
        ):
            writer = VideoWriter(
                container,
                rate,
                audio,
                is_seekable=is_seekable,
                is_rounded_down=is_rounded_down,
                primaries=primaries,
                encoder=encoder,
            )
            yield writer
            writer.finish()
    except OSError as err:  # PyAV's errors are OSErrors, too
        raise StorageError(f"{path.name}: could not be written ({err.strerror or err})") from err
