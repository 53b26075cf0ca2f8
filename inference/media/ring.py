"""Shared memory through which decoded clips leave the child."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference.media.frames import CHUNK_BYTES, Frame

N_SLOTS = 2  # clips: the child fills one while the parent copies the other out
KEPT_BYTES = 32 << 20  # of each slot, between media; what a giant picture took goes back to the machine
CHANNELS = 3


def slot_bytes_for(max_frame_pixels: int) -> int:
    """A clip is closed by the frame that takes it to CHUNK_BYTES: it can pass them by one frame.

    Returns: a whole number of pages.
    """
    n_bytes = CHUNK_BYTES + CHANNELS * max_frame_pixels
    return -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


class Ring:
    """N_SLOTS equal parts of one memory file; each takes the frames of a clip, one after another.

    The file has no name and no place in /dev/shm (64 MB in a container, by default), so nothing of
    it outlasts the processes. Its pages are taken when they are first written.
    """

    def __init__(self, fd: int, slot_bytes: int) -> None:
        """Map the memory file `fd`, which stays the caller's."""
        self.fd = fd
        self.slot_bytes = slot_bytes
        self._map = mmap.mmap(fd, N_SLOTS * slot_bytes)

    @classmethod
    def create(cls, slot_bytes: int) -> Ring:
        """Make the memory file; `close` gives it back."""
        fd = os.memfd_create("viseme-frames", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, N_SLOTS * slot_bytes)
            return cls(fd, slot_bytes)
        except BaseException:
            os.close(fd)
            raise

    def write(self, slot: int, frames: Sequence[Frame]) -> None:
        """frames: each (H, W, 3) uint8, or (n,) bytes. Raises: ValueError where they do not fit."""
        start, end = self._bounds(slot)
        for frame in frames:
            self._view(start, end, frame.shape)[...] = frame
            start += frame.nbytes

    def read(self, slot: int, sizes: Sequence[tuple[int, int]]) -> list[Frame]:
        """Copy frames of these heights and widths out: what is returned is the caller's own.

        Copied, because views would tie the child to a consumer that keeps frames; and at one stroke,
        because malloc gives small arrays back to the system and takes them again, page by page.
        Raises: ValueError where a slot holds no such frames.
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
        """Copy the first bytes of a slot out. Raises: ValueError where it does not hold so many."""
        start, end = self._bounds(slot)
        return self._view(start, end, (n_bytes,)).copy()

    def trim(self) -> None:
        """Give back the memory of all but the first KEPT_BYTES of each slot."""
        for slot in range(N_SLOTS):
            start, end = self._bounds(slot)
            if end - start > KEPT_BYTES:
                self._map.madvise(mmap.MADV_REMOVE, start + KEPT_BYTES, end - start - KEPT_BYTES)

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)

    def _bounds(self, slot: int) -> tuple[int, int]:
        if not 0 <= slot < N_SLOTS:
            raise ValueError(f"slot {slot}; expected 0 to {N_SLOTS - 1}")
        return slot * self.slot_bytes, (slot + 1) * self.slot_bytes

    def _view(self, start: int, end: int, shape: tuple[int, ...]) -> Frame:
        if min(shape) < 1 or start + math.prod(shape) > end:
            raise ValueError(f"a frame of {shape} does not fit into what is left of a slot, {end - start} bytes")
        return np.ndarray(shape, np.uint8, self._map, start)
