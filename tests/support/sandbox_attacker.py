"""A process that tries what a hostile file would: behind the walls it is given, against the process that started it.

Run as `python sandbox_attacker.py TASK`, a JSON object of the fields of `Target`, `walls`, and `is_forked`: whether it
has some of them from the process that it is forked from. It prints a JSON list for each attempt: its name, and "done"
or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.media.sandbox import confinement
from inference.media.sandbox.linux import LIBC, raise_error, system_call

PTRACE_SEIZE = 0x4206
COLUMN = 0 if platform.machine() == "x86_64" else 1
# Calls with invalid arguments: a wall shows as EPERM. x86_64, aarch64.
FORBIDDEN_CALLS = {
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "perf_event_open": (298, 241),
    "pidfd_open": (434, 434),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "setns": (308, 268),
    "truncate": (76, 45),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


@dataclass(frozen=True)
class Target:
    """What is attacked."""

    pid: int
    address: int  # of one byte of its memory
    port: int  # on loopback
    secret: str  # the path of a file that its user can read
    folder: str  # where its user can create files


class IoVector(ctypes.Structure):
    """A struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def attempts(target: Target) -> dict[str, Callable[[], object]]:
    proc = Path(f"/proc/{target.pid}")
    return {
        "start a thread": start_thread,
        "open a socket": lambda: socket.socket().close(),
        "connect": lambda: connect(target.port),
        "fork": fork,
        "read the environment": (proc / "environ").read_bytes,
        "read a file": Path(target.secret).read_bytes,
        "create a file": lambda: Path(target.folder, "created").touch(exist_ok=False),
        "look at a file": Path(target.secret).stat,
        "write memory": lambda: write_memory(target),
        "write memory by its file": lambda: write_memory_file(proc / "mem", target.address),
        "signal": lambda: os.kill(target.pid, 0),
        "signal by a descriptor": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, target.pid),
        "trace": lambda: raise_error(LIBC.ptrace(PTRACE_SEIZE, target.pid, None, None)),
        **{name: lambda numbers=numbers: system_call(numbers[COLUMN], -1) for name, numbers in FORBIDDEN_CALLS.items()},
        "run a program": lambda: os.execv("/bin/echo", ["echo", '["run a program", "done"]']),  # the last one
    }


def start_thread() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def connect(port: int) -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", port))


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def write_memory(target: Target) -> None:
    local = IoVector(ctypes.addressof(ctypes.create_string_buffer(b"x", 1)), 1)
    remote = IoVector(target.address, 1)
    LIBC.process_vm_writev.restype = ctypes.c_ssize_t
    raise_error(LIBC.process_vm_writev(target.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))


def write_memory_file(path: Path, address: int) -> None:
    with path.open("r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(b"x")


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as err:
        return errno.errorcode.get(err.errno or 0, str(err))
    return "done"


def main() -> None:
    task = json.loads(sys.argv[1])
    signal.alarm(60)  # only a guard against hanging
    walls = set(task.pop("walls"))
    if task.pop("is_forked"):
        walls -= confinement.confine_server()
        if pid := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    chosen = {wall: build for wall, build in confinement.BUILDERS.items() if wall in walls}
    tried = attempts(Target(**task))
    missing = confinement.confine(chosen)
    print(json.dumps(["missing", missing]), flush=True)
    for name, attempt in tried.items():
        print(json.dumps([name, outcome(attempt)]), flush=True)


if __name__ == "__main__":
    main()
