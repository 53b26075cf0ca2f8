"""Temporary folders that their process has locked, so that those of a killed process are recognized and deleted.

The kernel releases a lock however its process ends. Only folders with the suffix below were locked when they were made.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("viseme.files")
PREFIXES = ("viseme-", ".viseme-")
SUFFIX = ".locked"


@dataclass(frozen=True)
class LockedFolder:
    """A folder, and the descriptor of its lock."""

    path: Path
    lock: int

    @classmethod
    def make(cls, prefix: str) -> LockedFolder:
        """Create a private folder in the temporary directory. Raises: OSError if none can be created."""
        assert prefix.startswith(PREFIXES)
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX))
            try:
                lock = open_folder(path)
            except FileNotFoundError:  # deleted as an orphan before it was opened
                continue
            except OSError:  # such as too many open files
                path.rmdir()
                raise
            with contextlib.suppress(OSError):  # no locks in this file system: no other process deletes it
                fcntl.flock(lock, fcntl.LOCK_EX)
            if is_same(path, lock):
                return cls(path, lock)
            os.close(lock)  # deleted as an orphan before it was locked

    def delete(self) -> None:
        """Delete the folder with its contents. Call it once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)
        if self.path.exists():  # too many files are open: it takes two, and the lock was one
            delete_files(self.path)


@contextmanager
def locked_folder(prefix: str) -> Iterator[Path]:
    """Yield a private folder, and delete it afterwards. Raises: OSError if none can be created."""
    folder = LockedFolder.make(prefix)
    try:
        yield folder.path
    finally:
        folder.delete()


def delete_files(path: Path) -> None:
    """Delete a folder of files with a single open file. What it cannot delete is logged and left to the next start."""
    try:
        for name in os.listdir(path):  # noqa: PTH208 - the folder is closed before the first file is deleted
            (path / name).unlink()
        path.rmdir()
    except OSError as err:
        logger.warning("a temporary folder is left to the next start", extra={"folder": path.name, "reason": str(err)})


def remove_orphans() -> int:
    """Delete this user's folders that no running process has locked. Returns: their number."""
    n_removed = 0
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIXES) and entry.name.endswith(SUFFIX):
                n_removed += remove_if_orphan(Path(entry.path))
    return n_removed


def remove_if_orphan(path: Path) -> bool:
    """Delete a folder if it is this user's and unlocked; return whether it was deleted. A symbolic link is kept."""
    try:
        lock = open_folder(path)
    except OSError:  # a link, a file, another user's, or deleted meanwhile
        return False
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_same(path, lock):
            return False
        shutil.rmtree(path)
    except OSError:  # in use
        return False
    finally:
        os.close(lock)
    return True


def open_folder(path: Path) -> int:
    """Open a folder, but no link to one. Raises: OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def is_same(path: Path, lock: int) -> bool:
    """Return whether the path still is the folder that was opened."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(lock))
    except FileNotFoundError:
        return False
