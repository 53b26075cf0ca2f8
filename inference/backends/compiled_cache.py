"""A folder in which OpenVINO keeps compiled networks: loading one takes a third of the time of compiling it.

OpenVINO's key of a network covers its graph, names and weights, so that the graph is built to look it up; it applies
precision and threads when it loads one. Networks with a key of our own (`GraphRecipe`) are stored by us, and load
without their graph. A folder belongs to one version of OpenVINO and one kind of CPU. A file that was cut off, on a full
disk for example, is compiled again. Files are as good as code: a folder that other users own or can write to is not
used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.atomic_write import atomic_file
from inference.backends.telemetry import import_openvino

logger = logging.getLogger("viseme.backends")
CPUINFO = Path("/proc/cpuinfo")
MAX_BYTES = 256 << 20  # of all files; reading, lip sync and one avatar of the starter take 46 MB
LOCK_TIMEOUT_S = 20.0  # several networks are compiled in less
LOCK_POLL_S = 0.02
PRIVATE = 0o700
SUFFIX = ".network"  # of the files that we store
END = b"VISEME compiled\n"  # of each such file; a file without it was cut off
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@cache
def open_folder(root: Path) -> Path | None:
    """Return the folder for this OpenVINO and this CPU, created if it is missing.

    root: of all versions and CPUs. Returns: None, after a line in the log, if it can't be written or can't be trusted.
    """
    folder = root / machine_key()
    try:
        for path in (root, folder):
            make_private(path)
            check_trusted(path)
    except OSError as err:
        logger.warning(
            "compiled networks are not cached, so each start takes longer",
            extra={"folder": str(root), "reason": err.strerror or str(err)},
        )
        return None
    return folder


def make_private(folder: Path) -> None:
    """Create a folder for this user alone, unless it exists. Raises: OSError."""
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)


def check_trusted(folder: Path) -> None:
    """Raise OSError if others own a folder or may write to it, if it is a link, or if it can't be written."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder.name} is a link or a file; expected a folder")
    if found.st_uid != os.geteuid():
        raise OSError(f"{folder.name} belongs to user {found.st_uid}; expected {os.geteuid()}")
    if found.st_mode & OTHERS_MAY_WRITE:
        raise OSError(f"{folder.name} has the mode {stat.S_IMODE(found.st_mode):o}: other users may write to it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{folder.name} is read-only")


def store(folder: Path, key: str, network: bytes) -> None:
    """Store a compiled network under our own key, and delete the oldest files. Raises: OSError."""
    with atomic_file(folder / (key + SUFFIX)) as partial, partial.open("wb") as file:
        file.write(network)
        file.write(END)
    prune(folder.parent)


def read_stored(folder: Path, key: str) -> npt.NDArray[np.uint8] | None:
    """Map a stored network into memory; None without one. It stays mapped if its file is replaced or deleted."""
    try:
        content = np.memmap(folder / (key + SUFFIX), np.uint8, "c")  # private: OpenVINO takes no read-only array
    except (OSError, ValueError):  # missing, or empty
        return None
    return content[: -len(END)] if content[-len(END) :].tobytes() == END else None


@contextlib.contextmanager
def locked(folder: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Let one thread of one process at a time use a folder of compiled networks.

    OpenVINO maps the files that it loads into memory, and writes a missing one in place: a second writer would cut off
    what the network of another process reads, which kills that process (SIGBUS).
    Raises: OSError if the folder can't be locked, as on some network file systems. TimeoutError if another process,
    such as a suspended one, keeps it locked.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(descriptor, LOCK_TIMEOUT_S if timeout_s is None else timeout_s)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
    finally:
        os.close(descriptor)


def lock(descriptor: int, timeout_s: float) -> None:
    """Lock an open folder. Raises: OSError, as `locked` does."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if time.monotonic() >= until:
                raise TimeoutError(f"another process has locked it for {timeout_s:g} s") from err
            time.sleep(LOCK_POLL_S)


def machine_key() -> str:
    """Return a name for this version of OpenVINO and this kind of CPU."""
    with contextlib.suppress(OSError):  # a sandbox may deny access to /proc
        cpu = CPUINFO.read_text().partition("\n\n")[0].splitlines()
        kind = [line for line in cpu if line.partition(":")[0].strip() in ("model name", "flags", "Features")]
        return hashlib.sha256("\n".join([import_openvino().__version__, *kind]).encode()).hexdigest()[:16]
    return f"openvino-{import_openvino().__version__}"


def prune(root: Path, max_bytes: int = MAX_BYTES) -> None:
    """Delete the oldest files until the rest takes at most `max_bytes`."""
    files = []
    for path in root.glob("*/*"):
        with contextlib.suppress(OSError):  # another process deleted it
            if path.is_file():
                files.append((path.lstat().st_mtime_ns, path.lstat().st_size, path))
    n_bytes = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if n_bytes <= max_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        n_bytes -= size
