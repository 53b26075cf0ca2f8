"""The crops of a package, mapped from their file: in memory is what is being looked at, however long it speaks."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import BadPackage
from inference.media import Frame


def open_npy(path: Path) -> npt.NDArray[Any]:
    """An array that numpy wrote, memory-mapped and read as data only. Raises: BadPackage."""
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as err:
        raise BadPackage(f"{path}: not an array that numpy wrote, or a damaged one ({err})") from err
    return found


class CropArray:
    """(N, side, side, 3) uint8 BGR in a .npy file."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Raises: BadPackage for an array of another shape or type."""
        found = open_npy(path)
        if found.dtype != np.uint8 or found.shape != shape or not found.flags.c_contiguous:
            raise BadPackage(f"{path}: {found.dtype} of {found.shape}; expected uint8 of {shape}")
        self._offset = path.stat().st_size - found.nbytes
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._all = np.frombuffer(self._map, np.uint8, offset=self._offset).reshape(shape)

    def __getitem__(self, i: int) -> Frame:
        """A view of the file, not to be written into. Raises: IndexError."""
        if not 0 <= i < len(self._all):
            raise IndexError(f"frame {i} of {len(self._all)}")
        crop: Frame = self._all[i]
        return crop

    def release(self, i: int) -> None:
        """Crop i is not looked at for now: its pages go back to the system, which reads them again when need be."""
        n_bytes = self._all[i].nbytes
        first = (self._offset + i * n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        last = self._offset + (i + 1) * n_bytes
        self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
