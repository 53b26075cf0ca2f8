"""Frames for as long as the audio lasts, from a video that may be shorter, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np

from inference.errors import StorageError
from inference.lip_sync.options import LoopMode
from inference.lip_sync.preprocess import FaceFrame

SPOOL_BYTES = 4 << 30  # bytes on disk; 25 minutes of 360x288, a minute of 720p


class FrameSpool:
    """The last frames of a video, stored in an unnamed file, so that the video can play backwards.

    If the video is larger than the spool, the oldest frames are dropped. A context manager.
    """

    def __init__(self, max_bytes: int = SPOOL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._file = tempfile.TemporaryFile(prefix="viseme-frames-")  # noqa: SIM115 (closed by __exit__)
        self._boxes: list[FaceFrame] = []  # boxes of the stored frames, without pixels
        self._shape: tuple[int, ...] = ()
        self._n_added = 0

    def __len__(self) -> int:
        return min(self._n_added, self._n_slots) if self._n_added else 0

    @property
    def n_dropped(self) -> int:
        """Frames that were added but are no longer stored."""
        return self._n_added - len(self)

    def add(self, face_frame: FaceFrame) -> None:
        """Store a frame. Raises: StorageError if the disk is full."""
        self._shape = face_frame.frame.shape
        slot = self._n_added % self._n_slots
        try:
            self._file.seek(slot * face_frame.frame.nbytes)
            self._file.write(np.ascontiguousarray(face_frame.frame).data)
        except OSError as err:
            raise StorageError(f"frames could not be stored for the loop ({err.strerror or err})") from err
        without_frame = replace(face_frame, frame=np.zeros((0, 0, 3), np.uint8))
        self._boxes[slot : slot + 1] = [without_frame]
        self._n_added += 1

    def __getitem__(self, index: int) -> FaceFrame:
        """Read a frame back. index: counted from the oldest frame stored."""
        slot = (self.n_dropped + index) % self._n_slots
        n_bytes = int(np.prod(self._shape))
        self._file.seek(slot * n_bytes)
        frame = np.frombuffer(self._file.read(n_bytes), np.uint8).reshape(self._shape)
        return replace(self._boxes[slot], frame=frame)

    @property
    def _n_slots(self) -> int:
        return max(self._max_bytes // int(np.prod(self._shape)), 2)

    def __enter__(self) -> FrameSpool:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def loop_frames(
    face_frames: Iterable[FaceFrame], n_frames: int, loop: LoopMode, *, spooled: bool = True
) -> Iterator[FaceFrame]:
    """Yield exactly `n_frames` frames: those of the video, then back and forth (each end once), or from the start.

    spooled: False if the video is known to be long enough, so that frames need not be stored.
    """
    n_yielded = 0
    with FrameSpool() as spool:
        for face_frame in face_frames:
            if n_yielded == n_frames:
                return
            if spooled:
                spool.add(face_frame)
            yield face_frame
            n_yielded += 1
            last = face_frame
        while n_yielded < n_frames:
            yield spool[loop_index(n_yielded - spool.n_dropped, len(spool), loop)] if spooled else last
            n_yielded += 1


def remap_frames(face_frames: Iterable[FaceFrame], n_source: int, n_frames: int) -> Iterator[FaceFrame]:
    """Yield exactly `n_frames` frames: those of the video, slowed down or sped up, each at its nearest time.

    n_source: number of frames of the video. If it turns out to have fewer, the last one is held.
    """
    shown, index = None, -1
    frames = iter(face_frames)
    for k in range(n_frames):
        wanted = remapped_index(k, n_source, n_frames)
        while index < wanted and (face_frame := next(frames, None)) is not None:
            shown, index = face_frame, index + 1
        if shown is None:
            return
        yield shown


def remapped_index(k: int, n_source: int, n_frames: int) -> int:
    """Return the frame of the video that is shown at the middle of frame k of the output."""
    return (2 * k + 1) * n_source // (2 * n_frames)


def loop_index(step: int, n: int, loop: LoopMode) -> int:
    """Return which of n frames is shown at a step; step 0 shows the first."""
    return step % n if loop == "restart" else ping_pong_index(step, n)


def ping_pong_index(step: int, n_frames: int) -> int:
    """Return the frame shown at a step: 0, 1, ... to the last one and back to 0; each end is shown once.

    step: from 0, which shows frame 0. n_frames: at least 1; a single frame is always shown.
    """
    if n_frames == 1:
        return 0
    position = step % (2 * n_frames - 2)
    return position if position < n_frames else 2 * n_frames - 2 - position
