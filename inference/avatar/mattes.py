"""The mattes of a package: how much of each pixel of its frames is the person, compressed frame by frame."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.errors import BadPackage

Matte = npt.NDArray[np.uint8]  # (H, W): 255 is the person, 0 the background


class MatteWriter:
    """Writer of a .npz archive with one array for each frame, named by its index."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._n_frames = 0

    def add(self, matte: Matte) -> None:
        with self._archive.open(f"{self._n_frames}.npy", "w") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(matte, np.uint8), version=(1, 0))
        self._n_frames += 1

    def close(self) -> None:
        self._archive.close()


class MatteArchive:
    """Reader of what `MatteWriter` wrote. Any thread may use it."""

    def __init__(self, path: Path, n_frames: int, width: int, height: int) -> None:
        """Open the archive. Raises: BadPackage if it is damaged, or has other frames."""
        self._path, self._shape = path, (height, width)
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as err:
            raise BadPackage(f"{path}: not an archive of mattes, or damaged ({err})") from err
        if sorted(self._archive.namelist()) != sorted(f"{i}.npy" for i in range(n_frames)):
            self.close()
            raise BadPackage(f"{path}: {len(self._archive.namelist())} mattes; expected those of {n_frames} frames")

    def read(self, i: int) -> Matte:
        """Return the matte of frame i: (H, W) uint8. Raises: BadPackage if it is damaged, or of another size."""
        try:
            with self._archive.open(f"{i}.npy") as file:
                np.lib.format.read_magic(file)
                shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
                if (shape, is_fortran, dtype) != (self._shape, False, np.dtype(np.uint8)):
                    raise BadPackage(f"{self._path}: frame {i} has {dtype} of {shape}; expected uint8 of {self._shape}")
                values = file.read(self._shape[0] * self._shape[1])  # no more, whatever the archive contains
            return np.frombuffer(values, np.uint8).reshape(self._shape)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as err:
            raise BadPackage(f"{self._path}: the matte of frame {i} is damaged ({err})") from err

    def close(self) -> None:
        self._archive.close()
