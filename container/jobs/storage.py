"""The files of jobs: inputs, outputs of each attempt, and logs.

    ID/input                 the body of the request
    ID/attempts/N/NAME       outputs of attempt N
    ID/logs/N.txt            the log of attempt N

A file is complete, and on the disk, when the call that writes it returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from container.jobs.records import attempt_prefix
from inference.atomic_write import atomic_file
from inference.errors import MediaNotFound, Overloaded

INPUT = "input"
PARTIAL_FILES = ".*.partial*"  # of `atomic_file`
JOB_ID = re.compile("[0-9a-f]{32}")
KEY = re.compile(r"input|logs/[0-9]{1,9}\.txt|attempts/[0-9]{1,9}/[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True)
class StoredFile:
    """A file in storage. key: relative to the folder of its job."""

    key: str
    n_bytes: int
    sha256: str


def log_key(attempt: int) -> str:
    return f"logs/{attempt}.txt"


class JobStorage(ABC):
    """Where the files of jobs are. Every machine that runs jobs of one database uses the same storage."""

    @abstractmethod
    def write(self, job_id: str, key: str, source: Path) -> StoredFile:
        """Store a file under a key, in the place of an earlier one; the source may be moved.

        Raises: Overloaded if there is no space, StorageError.
        """

    @abstractmethod
    def read(self, job_id: str, key: str) -> AbstractContextManager[Path]:
        """Return a context that yields a local copy of a file. Raises: MediaNotFound, StorageError."""

    @abstractmethod
    def url(self, job_id: str, key: str) -> str | None:
        """Return a URL by which callers can download a file, or None if only this server gives it."""

    @abstractmethod
    def delete_attempts(self, job_id: str, kept: int | None) -> None:
        """Delete the files of every attempt but one, and what killed processes left; None: of every attempt.

        Raises: StorageError.
        """

    @abstractmethod
    def delete_attempt(self, job_id: str, attempt: int) -> None:
        """Delete the files of one attempt, if any. Raises: StorageError."""

    @abstractmethod
    def delete_input(self, job_id: str) -> None:
        """Delete the input of a job, if it is there. Raises: StorageError."""

    @abstractmethod
    def delete(self, job_id: str) -> None:
        """Delete every file of a job, if any. Raises: StorageError."""

    def free_bytes(self) -> int | None:
        """Return the bytes that are free for files, or None if they are not limited. Raises: Overloaded."""
        return None

    def bytes_to_write(self, source: Path) -> int:
        """Return by how many bytes a file makes the free ones fewer: none if it is only moved. Raises: Overloaded."""
        with disk_errors():
            return source.stat().st_size

    @abstractmethod
    def job_ids(self, older_than: float) -> Iterator[str]:
        """Yield the ids of jobs whose files were first written before a time, in seconds since 1970."""


class FolderStorage(JobStorage):
    """Files in a folder: of this machine, or of a file system that all machines share."""

    def __init__(self, root: Path) -> None:
        """Create the folder. Raises: StorageError."""
        self.root = root
        with disk_errors():
            root.mkdir(parents=True, exist_ok=True)

    def write(self, job_id: str, key: str, source: Path) -> StoredFile:
        target = self._path(job_id, key)
        with disk_errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            n_bytes, sha256 = digest_of(source)
            with atomic_file(target) as partial:
                move_to_disk(source, partial)
            for folder in (target.parent, *target.parent.parents):
                flush_folder(folder)
                if folder == self.root:
                    break
        return StoredFile(key, n_bytes, sha256)

    @contextmanager
    def read(self, job_id: str, key: str) -> Iterator[Path]:
        path = self._path(job_id, key)
        if not path.is_file():
            raise MediaNotFound(f"the job has no file {key}: it is not stored yet, or was deleted after its time")
        yield path

    def url(self, job_id: str, key: str) -> None:  # noqa: ARG002 - only this server has the files
        return None

    def delete_attempts(self, job_id: str, kept: int | None) -> None:
        folder = self._folder(job_id) / "attempts"
        with disk_errors():
            for one in list(folder.iterdir()) if folder.is_dir() else []:
                if kept is None or one.name != str(kept):
                    delete_tree(one)
            for partial in self._folder(job_id).rglob(PARTIAL_FILES):  # of processes that were killed
                partial.unlink(missing_ok=True)

    def delete_attempt(self, job_id: str, attempt: int) -> None:
        with disk_errors():
            delete_tree(self._folder(job_id) / attempt_prefix(attempt))

    def delete_input(self, job_id: str) -> None:
        with disk_errors():
            self._path(job_id, INPUT).unlink(missing_ok=True)

    def delete(self, job_id: str) -> None:
        with disk_errors():
            delete_tree(self._folder(job_id))

    def free_bytes(self) -> int:
        with disk_errors():
            return shutil.disk_usage(self.root).free

    def bytes_to_write(self, source: Path) -> int:
        with disk_errors():
            found = source.stat()
            return 0 if found.st_dev == self.root.stat().st_dev else found.st_size

    def job_ids(self, older_than: float) -> Iterator[str]:
        with disk_errors(), os.scandir(self.root) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process may have deleted it meanwhile
                    if JOB_ID.fullmatch(entry.name) and entry.stat().st_mtime < older_than:
                        yield entry.name

    def _folder(self, job_id: str) -> Path:
        check_name(JOB_ID, job_id)
        return self.root / job_id

    def _path(self, job_id: str, key: str) -> Path:
        check_name(KEY, key)
        return self._folder(job_id) / key


def check_name(pattern: re.Pattern[str], name: str) -> None:
    """Raise MediaNotFound if a caller's name cannot be that of a file: nothing outside the job can be reached."""
    if not pattern.fullmatch(name):
        raise MediaNotFound(f"there is no file {name[:80]!r}")


def digest_of(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and its SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def move_to_disk(source: Path, target: Path) -> None:
    """Move a file, or copy it from another file system, and flush it to the disk. Raises: OSError."""
    try:
        source.rename(target)
    except OSError:
        shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_tree(folder: Path) -> None:
    """Delete a folder; another process may be deleting it, too. Raises: OSError."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):  # of a file that the other process has deleted
            shutil.rmtree(folder)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise Overloaded if the disk refuses a file: another try may succeed."""
    try:
        yield
    except OSError as err:
        raise Overloaded(f"the files of a job could not be stored ({err.strerror or err}); try again later") from err
