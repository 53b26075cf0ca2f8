"""Files and folders that appear complete or not at all.

Each is written under a temporary name in the folder of its target, so that the final rename never crosses a file
system. Nothing is flushed to the disk with fsync: a reader never finds a partial file, but a power failure may lose it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SUFFIX = 32  # characters: no format has a longer one, and a name may have 255 bytes


@contextmanager
def atomic_file(path: Path, *, mode: int | None = None, make_parents: bool = False) -> Iterator[Path]:
    """Yield a temporary path; move the file written there to `path` if the block succeeds, else delete it.

    The temporary name keeps the suffix, which many libraries choose a format by, unless it is too long to be one. An
    older file at `path` stays until the move. mode: permissions of the file; by default those that the writer gave it.
    make_parents: create the folder.
    Raises: OSError if the file cannot be moved, FileNotFoundError if the block wrote none.
    """
    if make_parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if len(path.suffix) <= MAX_SUFFIX else ""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial{suffix}")
    try:
        yield partial
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; rename it to `path` if the block succeeds, else delete it.

    Parents are created. Only an empty folder at `path` is replaced.
    Raises: OSError, with ENOTEMPTY, EEXIST or ENOTDIR if something else is at `path` by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a private folder of its own, so that the new folder gets the usual permissions.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".partial") as private:
        partial = Path(private) / path.name
        partial.mkdir()
        yield partial
        partial.rename(path)
