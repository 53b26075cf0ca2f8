"""Shared memory that carries decoded clips from the child to the parent."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference.media.frames import CHUNK_BYTES, Frame

N_SLOTS = 2  # clips: the child fills one while the parent copies the other
CHANNELS = 3
# The size is for ever: a child that made the file smaller would kill the parent, which reads it (SIGBUS).
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def slot_bytes_for(max_frame_pixels: int) -> int:
    """Return the size of a slot, a whole number of pages.

    A clip ends with the frame that takes it to CHUNK_BYTES, so it can exceed them by one frame.
    """
    n_bytes = CHUNK_BYTES + CHANNELS * max_frame_pixels
    return -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedFrameBuffer:
    """A memory file of N_SLOTS equal slots; each holds the frames of one clip in a row.

    The file has no name and is not in /dev/shm (64 MB in a container, by default), so it ends with the processes. Its
    pages are allocated when they are first written.
    """

    def __init__(self, fd: int, slot_bytes: int) -> None:
        """Map the memory file `fd`, which the caller still owns."""
        self.fd = fd
        self.slot_bytes = slot_bytes
        self._map = mmap.mmap(fd, N_SLOTS * slot_bytes)

    @classmethod
    def create(cls, slot_bytes: int) -> SharedFrameBuffer:
        """Create the memory file; `close` frees it."""
        fd = os.memfd_create("viseme-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, N_SLOTS * slot_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return cls(fd, slot_bytes)
        except BaseException:
            os.close(fd)
            raise

    def write(self, slot: int, frames: Sequence[Frame]) -> None:
        """Copy frames into a slot, each (H, W, 3) uint8, or (n,) bytes. Raises: ValueError if they do not fit."""
        start, end = self._bounds(slot)
        for frame in frames:
            self._view(start, end, frame.shape)[...] = frame
            start += frame.nbytes

    def read(self, slot: int, sizes: Sequence[tuple[int, int]]) -> list[Frame]:
        """Return copies of a slot's frames, given their heights and widths: (H, W, 3) uint8 each.

        Copies, because a consumer that keeps views would block the child; one allocation for all, because malloc
        returns small arrays to the system and has to fault their pages in again.
        Raises: ValueError if the slot cannot hold such frames.
        """
        start, end = self._bounds(slot)
        shapes = [(height, width, CHANNELS) for height, width in sizes]
        block = self._view(start, end, (sum(math.prod(shape) for shape in shapes),)).copy()
        frames = []
        at = 0
        for shape in shapes:
            frames.append(np.ndarray(shape, np.uint8, block, at))
            at += frames[-1].nbytes
        return frames

    def read_bytes(self, slot: int, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Return a copy of a slot's first bytes. Raises: ValueError if it does not hold so many."""
        start, end = self._bounds(slot)
        return self._view(start, end, (n_bytes,)).copy()

    def clear(self) -> None:
        """Free the memory: the next process must not see the frames of the last one."""
        self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)

    def _bounds(self, slot: int) -> tuple[int, int]:
        if not 0 <= slot < N_SLOTS:
            raise ValueError(f"slot {slot}; expected 0 to {N_SLOTS - 1}")
        return slot * self.slot_bytes, (slot + 1) * self.slot_bytes

    def _view(self, start: int, end: int, shape: tuple[int, ...]) -> Frame:
        if min(shape) < 1 or start + math.prod(shape) > end:
            raise ValueError(f"a frame of shape {shape} does not fit into the {end - start} bytes left in a slot")
        return np.ndarray(shape, np.uint8, self._map, start)
