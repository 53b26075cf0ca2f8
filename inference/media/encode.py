"""Write videos: H.264 with AAC in MP4, made whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from inference.errors import InvalidRequest, StorageError
from inference.media.frames import Frame
from inference.media.voice import to_frame

CLOCK = Fraction(1, 90000)  # of pictures: every usual rate is exact to 11 microseconds
QUALITY = 18  # constant rate factor of x264: 18 is close to what the eye can tell from the source
SPEED = "veryfast"
OPENCV_AVX512 = 13  # OpenCV's number for it: its Python package has no name for it
# x264 made another film of the same pictures in one of ten runs where it used AVX-512 (of the macroblock tree's
# costs: none without that), and the same one in each of 420 with AVX2 alone, in the same time.
REPEATABLE = "asm=AVX2"
SOUND_BITS = 96_000  # a second, of each channel: ample for a voice
ALONE = {"g": "1", "bf": "0"}  # for x264: every frame a key frame
# How levels become those of films that single frames are read from: swscale's default truncates, and each time that a
# picture is written and read it would grow darker by two levels.
ROUNDED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
SUFFIXES = (".mp4", ".mov", ".mkv")


class Track(Protocol):
    """Sound to be written: a `Sound`, or a `Voice`. Its length is counted in samples of one channel."""

    rate: int
    n_channels: int

    def __len__(self) -> int: ...

    def cut(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """(n, channels)."""


class FilmWriter:
    """An MP4 being written. Made by `write_film`."""

    def __init__(
        self, container: av.container.OutputContainer, fps: Fraction, sound: Track | None, *, is_seekable: bool
    ) -> None:
        self._container = container
        self._fps = fps
        self._is_seekable = is_seekable
        self._video: av.video.stream.VideoStream | None = None
        self._sound = sound
        self._last_s = Fraction(-1)
        self._audio = add_audio(container, sound) if sound is not None else None
        self._n_heard = 0

    def add(self, frame: Frame, at_s: Fraction | None = None) -> None:
        """The next picture, (H, W, 3) uint8 BGR, H and W even and the same for all; at_s: when, else at the rate."""
        video = self._video = self._video or self._add_video(frame)
        at_s = self._last_s + 1 / self._fps if at_s is None and self._last_s >= 0 else at_s or Fraction(0)
        if at_s <= self._last_s:
            raise ValueError(f"a picture at {float(at_s):g} s after one at {float(self._last_s):g} s")
        self._last_s = at_s
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        if self._is_seekable:
            picture = picture.reformat(format="yuv420p", interpolation=ROUNDED)
        picture.pts, picture.time_base = round(at_s / CLOCK), CLOCK
        self._container.mux(video.encode(picture))
        self._add_sound_until(at_s)

    def finish(self) -> None:
        """What the encoders still hold."""
        if self._video is None:
            raise ValueError("a film without a picture")
        self._container.mux(self._video.encode())
        self._add_sound_until(None)
        if self._audio is not None:
            self._container.mux(self._audio.encode())

    def _add_video(self, frame: Frame) -> av.video.stream.VideoStream:
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            raise ValueError(f"pictures of {width}x{height} pixels; even numbers expected")
        options = {"crf": str(QUALITY), "preset": SPEED, **(ALONE if self._is_seekable else {})}
        if cv2.checkHardwareSupport(OPENCV_AVX512):  # to name AVX2 where there is none would end us
            options["x264-params"] = REPEATABLE
        video: av.video.stream.VideoStream = self._container.add_stream("libx264", rate=self._fps, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = CLOCK
        return video

    def _add_sound_until(self, at_s: Fraction | None) -> None:
        """Sound up to a moment, so that both lie side by side in the file."""
        if self._sound is None or self._audio is None:
            return
        n_total = len(self._sound)
        end = n_total if at_s is None else min(n_total, round(at_s * self._sound.rate))
        if end > self._n_heard:
            frame = to_frame(self._sound.cut(self._n_heard, end), self._sound.rate, self._n_heard)
            frame.time_base = Fraction(1, self._sound.rate)
            self._container.mux(self._audio.encode(frame))
            self._n_heard = end


def add_audio(container: av.container.OutputContainer, sound: Track) -> av.audio.stream.AudioStream:
    audio: av.audio.stream.AudioStream = container.add_stream("aac", rate=sound.rate)
    audio.layout = "mono" if sound.n_channels == 1 else "stereo"
    audio.bit_rate = SOUND_BITS * sound.n_channels
    return audio


class Sound:
    """One voice: samples (N,) float32, -1..1, or int16, at `rate` a second."""

    n_channels = 1

    def __init__(self, samples: npt.NDArray[np.float32] | npt.NDArray[np.int16], rate: int) -> None:
        self.samples, self.rate = samples, rate

    def __len__(self) -> int:
        return len(self.samples)

    def cut(self, start: int, end: int) -> npt.NDArray[np.int16]:
        samples = self.samples[start:end, None]
        whole = samples if samples.dtype == np.int16 else np.clip(samples, -1, 1) * 32767
        return whole.astype(np.int16)


@contextmanager
def write_film(
    path: Path, fps: float | Fraction, sound: Track | None = None, *, is_seekable: bool = False
) -> Iterator[FilmWriter]:
    """Write a film to `path` while its frames come: `writer.add(frame)`.

    is_seekable: every frame stands by itself, for a `FrameReader`; the file is some three times larger.
    It appears under its name when it is whole; where anything fails, nothing is left behind.

    Raises: InvalidRequest for a suffix other than .mp4, .mov, .mkv; StorageError where it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidRequest(f"{path.name}: cannot write this kind of file; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        found = "is a directory" if path.is_dir() else "its folder does not exist"
        raise InvalidRequest(f"{path}: {found}; expected a file to write")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    rate = Fraction(fps).limit_denominator(1001)
    try:
        # Whole: of a name alone FFmpeg would take what stands before a colon for a protocol.
        with av.open(str(partial.absolute()), "w", options={"movflags": "+faststart"}) as container:
            writer = FilmWriter(container, rate, sound, is_seekable=is_seekable)
            yield writer
            writer.finish()
        os.replace(partial, path)
    except OSError as err:  # PyAV's errors are of this kind, too
        raise StorageError(f"{path.name}: could not be written ({err.strerror or err})") from err
    finally:
        partial.unlink(missing_ok=True)
