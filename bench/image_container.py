"""Runs the file system of an image as a container, with no more than util-linux."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_S = 40.0  # SageMaker kills a container 30 s after SIGTERM
# Namespaces for mounts and processes. All of them end with `unshare`.
ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# Process 1 of the container. The mounts are those that Docker makes. $1: root; $2: ro or rw; the rest: the command.
START = """
set -e
root=$1 mode=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
if [ "$mode" = ro ]; then
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
fi
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class UnpackedImage:
    """The file system of an image, and what starts it. environment: NAME=VALUE."""

    root: Path
    environment: list[str]
    entry_point: list[str]

    def command(self, mode: str, *words: str) -> list[str]:
        """Return the command that runs the entry point with these words as `docker run IMAGE` does.

        mode: ro or rw. The first process ends with the command that is returned.
        """
        start = ["sh", "-c", START, "sh", str(self.root), mode]
        return [*ISOLATED, *start, "env", "-i", *self.environment, *self.entry_point, *words]


@dataclass(frozen=True)
class Container:
    """A running container. outer: `unshare`, whose child is the container's process 1."""

    outer: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        """Process 1 and all others."""
        [first] = psutil.Process(self.outer.pid).children()
        return [first, *first.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the CPU time so far, with that of processes that have ended."""
        return float(sum(sum(one.cpu_times()[:4]) for one in self.processes))

    def memory_mib(self) -> float:
        """Return the memory of all processes, each page counted once."""
        return float(sum(one.memory_full_info().pss for one in self.processes)) / 2**20

    def stop(self) -> float:
        """Send SIGTERM to process 1. Returns: seconds. Raises: SystemExit if it does not end, or ends with an error."""
        started_s = time.monotonic()
        self.processes[0].terminate()
        try:
            code = self.outer.wait(STOP_S)
        except subprocess.TimeoutExpired as err:
            raise SystemExit(f"image-check: the container runs {STOP_S:.0f} s after SIGTERM") from err
        if code:
            raise SystemExit(f"image-check: the container ended with exit code {code} after SIGTERM; expected 0")
        return time.monotonic() - started_s
