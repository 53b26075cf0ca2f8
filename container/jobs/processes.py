"""The identity of a process, by which another one of the same host finds out whether it still runs."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the name of the program, which may contain spaces


@dataclass(frozen=True)
class ProcessIdentity:
    """A process and its host. process: its number and start time, since numbers are given again."""

    host: str
    process: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        return cls(host_name(), process_name(os.getpid()))


@cache
def host_name() -> str:
    """Return a name of this boot of this machine, and of its space of process numbers: containers have their own."""
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = BOOT_ID.read_text().strip()
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    return ":".join((socket.gethostname()[:64], boot.replace("-", ""), space))[:128]


def process_name(pid: int) -> str:
    return f"{pid}:{start_time_of(pid)}"


def start_time_of(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if it does not exist or has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[START_TIME_FIELD]


def is_alive(process: str) -> bool:
    """Return whether the process of that name runs on this host."""
    pid, _, started = process.partition(":")
    if not pid.isdecimal():
        return False
    return bool(started) and start_time_of(int(pid)) == started
