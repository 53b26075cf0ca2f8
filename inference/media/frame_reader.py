"""Random access to single frames of a video."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import av
from av.video.reformatter import ColorRange
from cachetools import LRUCache

from inference.errors import UnsupportedMedia
from inference.media.colour import UNSPECIFIED, YuvMatrix, colour_of
from inference.media.files import open_bytes, size_of
from inference.media.frames import Frame
from inference.media.limits import LimitCounter, MediaLimits
from inference.media.open import open_container
from inference.media.streams import choose_video
from inference.media.video import Media
from inference.media.yuv import planes_of, to_bgr


class FrameReader:
    """Decodes requested frames and caches the last few. Only for videos in which every frame is a key frame.

    May be used by several threads. Close it, or use it as a context manager.
    """

    def __init__(self, path: Path, cache_size: int = 2, limits: MediaLimits | None = None) -> None:
        """Open the video and index its frames.

        cache_size: size of the cache, in frames.
        Raises: MediaNotFound, MediaTooLarge, UnsupportedMedia, also if a frame is not a key frame.
        """
        self._limits = limits or MediaLimits()
        self._cache: LRUCache[int, Frame] = LRUCache(cache_size)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        with ExitStack() as stack:
            file, self.name = stack.enter_context(open_bytes(path, self._limits))
            self._container = stack.enter_context(open_container(file, self.name, self._limits))
            self._n_bytes = size_of(file)
            self.video = Media(self._container, self.name, self._limits, file).video  # checks what it declares
            self._stream = choose_video(self._container, self.name)
            self._stream.thread_count = 1
            self._timestamps = self._index()
            self._stack = stack.pop_all()

    def __len__(self) -> int:
        return len(self._timestamps)

    def read(self, index: int) -> Frame:
        """Return frame `index`: (H, W, 3) uint8 BGR, read-only. Raises: IndexError, UnsupportedMedia."""
        if not 0 <= index < len(self._timestamps):
            raise IndexError(f"frame {index} of {len(self._timestamps)}")
        with self._lock:
            frame = self._cache.get(index)
            if frame is None:
                frame = self._cache[index] = self._decode(self._timestamps[index])
                frame.flags.writeable = False
            return frame

    def close(self) -> None:
        with self._lock:
            self._stack.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _index(self) -> list[int]:
        """Return the timestamp of each frame, in the stream's ticks."""
        timestamps: list[int] = []
        for packet in self._container.demux(self._stream):
            if packet.pts is None:
                continue  # the empty packet at the end
            if not packet.is_keyframe:
                raise UnsupportedMedia(
                    f"{self.name}: frame {len(timestamps)} is not a key frame; expected an all-intra video"
                )
            timestamps.append(packet.pts)
        return sorted(timestamps)

    def _decode(self, timestamp: int) -> Frame:
        try:
            self._container.seek(timestamp, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.pts == timestamp:
                    return self._to_bgr([*packet.decode(), *self._stream.decode(None)])
        except MemoryError:
            raise
        except (av.error.FFmpegError, EOFError) as err:
            raise UnsupportedMedia(f"{self.name}: the frame at tick {timestamp} cannot be decoded ({err})") from err
        raise UnsupportedMedia(f"{self.name}: the frame at tick {timestamp} is missing; the file may have changed")

    def _to_bgr(self, frames: list[av.VideoFrame]) -> Frame:
        if not frames:
            raise UnsupportedMedia(f"{self.name}: a frame contains no image")
        LimitCounter(self.name, self._limits, self._n_bytes).count(frames[0])
        if frames[0].colorspace == UNSPECIFIED:
            frames[0].colorspace = YuvMatrix.BT601  # of any size: it was written before `VideoWriter` tagged its videos
        matrix = colour_of(frames[0], is_still=False).matrix
        planes = frames[0].reformat(format="yuv420p", dst_color_range=ColorRange.MPEG)
        return to_bgr(planes_of(planes), matrix, is_full=False)
