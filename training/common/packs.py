"""Packs: .npz files of training clips in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inference.atomic_write import atomic_file


def write_arrays(arrays: dict[str, Any], path: Path) -> None:
    """Write one pack."""
    with atomic_file(path) as partial:
        np.savez(partial, **arrays)


def find_packs(folder: Path, content: str) -> list[Path]:
    """Return the packs of a folder. content: what they contain, for the message.

    Raises: FileNotFoundError if there is none.
    """
    paths = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))  # those are unfinished
    if not paths:
        raise FileNotFoundError(f"{folder}: no .npz packs of {content}")
    return paths


def missing_packs(folder: Path, first_seed: int, n_clips: int, pack_size: int) -> Iterator[tuple[Path, range]]:
    """Yield the path and the seeds of each pack of rendered clips that the folder lacks."""
    end = first_seed + n_clips
    for first in range(first_seed, end, pack_size):
        path = folder / f"rendered_{first}.npz"
        if not path.exists():
            yield path, range(first, min(first + pack_size, end))
