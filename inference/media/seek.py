"""Single frames of a film, in any order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from inference.errors import UnsupportedMedia
from inference.media.frames import Frame
from inference.media.limits import MediaLimits
from inference.media.open import Media, Meter, open_bytes, open_container


class FrameReader:
    """Decodes the frame that is asked for, and keeps the last few. For films in which every frame stands by itself.

    May be used by several threads. To be closed, or used as a context manager.
    """

    def __init__(self, path: Path, n_kept: int = 2, limits: MediaLimits | None = None) -> None:
        """Raises: MediaNotFound, MediaTooLarge, UnsupportedMedia, also where frames lean on one another."""
        self._limits = limits or MediaLimits()
        self._n_kept = n_kept
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        with ExitStack() as stack:
            file, self.name = stack.enter_context(open_bytes(path, self._limits))
            self._container = stack.enter_context(open_container(file, self.name, self._limits))
            self.video = Media(self._container, self.name, self._limits).video  # checks what it declares
            self._stream = self._container.streams.video[0]
            self._stream.thread_count = 1
            self._stamps = self._index()
            self._stack = stack.pop_all()

    def __len__(self) -> int:
        return len(self._stamps)

    def read(self, index: int) -> Frame:
        """(H, W, 3) uint8 BGR, not to be written into. Raises: IndexError, UnsupportedMedia."""
        if not 0 <= index < len(self._stamps):
            raise IndexError(f"frame {index} of {len(self._stamps)}")
        with self._lock:
            if index not in self._kept:
                self._kept[index] = self._decode(self._stamps[index])
                self._kept[index].flags.writeable = False
                while len(self._kept) > self._n_kept:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(index)
            return self._kept[index]

    def close(self) -> None:
        with self._lock:
            self._stack.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _index(self) -> list[int]:
        """When each frame is shown, in the stream's ticks."""
        stamps: list[int] = []
        for packet in self._container.demux(self._stream):
            if packet.pts is None:
                continue  # the empty packet at the end
            if not packet.is_keyframe:
                raise UnsupportedMedia(f"{self.name}: frame {len(stamps)} leans on another; expected each by itself")
            stamps.append(packet.pts)
        return sorted(stamps)

    def _decode(self, stamp: int) -> Frame:
        try:
            self._container.seek(stamp, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.pts == stamp:
                    return self._to_picture([*packet.decode(), *self._stream.decode(None)])
        except MemoryError:
            raise
        except (av.error.FFmpegError, EOFError) as err:
            raise UnsupportedMedia(f"{self.name}: the frame at tick {stamp} cannot be decoded ({err})") from err
        raise UnsupportedMedia(f"{self.name}: there is no frame at tick {stamp} any more")

    def _to_picture(self, frames: list[av.VideoFrame]) -> Frame:
        if not frames:
            raise UnsupportedMedia(f"{self.name}: a frame holds no picture")
        Meter(self.name, self._limits).count(frames[0])
        # By OpenCV, which rounds where swscale truncates by default: levels stay what they were, within one.
        yuv = frames[0].to_ndarray(format="yuv420p")
        return np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420), np.uint8)
