"""The crops of a package, memory-mapped: only crops in use take memory, however long the package is."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import BadPackage
from inference.media import Frame


def open_npy(path: Path) -> npt.NDArray[Any]:
    """Open a .npy array memory-mapped, as data only. Raises: BadPackage if it is invalid."""
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as err:
        raise BadPackage(f"{path}: not a NumPy array, or damaged ({err})") from err
    return found


class CropArray:
    """Crops in a .npy file: (N, side, side, 3) uint8 BGR."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Map the file. Raises: BadPackage if it has another shape or type."""
        found = open_npy(path)
        if found.dtype != np.uint8 or found.shape != shape or not found.flags.c_contiguous:
            raise BadPackage(f"{path}: {found.dtype} of {found.shape}; expected uint8 of {shape}")
        self._offset = path.stat().st_size - found.nbytes
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._all = np.frombuffer(self._map, np.uint8, offset=self._offset).reshape(shape)

    def __getitem__(self, i: int) -> Frame:
        """Return a read-only view of the file. Raises: IndexError."""
        if not 0 <= i < len(self._all):
            raise IndexError(f"frame {i} of {len(self._all)}")
        crop: Frame = self._all[i]
        return crop

    def release(self, i: int) -> None:
        """Release the memory pages of crop i; the system reads them again when needed."""
        n_bytes = self._all[i].nbytes
        first = (self._offset + i * n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        last = self._offset + (i + 1) * n_bytes
        self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
