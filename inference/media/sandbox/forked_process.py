"""Decoder processes, forked by a server that has imported everything: the parent's side of `fork_server`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from inference.media.sandbox.messages import send

MAX_STDERR_BYTES = 64 << 10  # of one process; a crash report takes a few kilobytes
STDERR_CHUNK_BYTES = 4096
MAX_CODE_BYTES = 16


class ForkServer:
    """A process that forks decoders. Close it: decoders that it forked end with their sockets."""

    def __init__(self) -> None:
        """Start the server without waiting for it: a new interpreter (no fork: this process has threads).

        It gets none of our environment, which holds credentials, except the module search path. Raises: OSError.
        """
        environment = {
            "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
            "OPENBLAS_NUM_THREADS": "1",  # numpy only copies there; BLAS threads would take address space
            "MALLOC_ARENA_MAX": "2",  # glibc reserves 64 MB of address space for each
            # Freed frames stay in the heap: page faults for each new clip would cost 40 % more CPU time.
            "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
            "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages: a third of the page faults' time for 8K
        }
        self._control, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other_end:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-X", "utf8", "-m", "inference.media.sandbox.fork_server"],
                    stdin=other_end.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,  # not ours: it could rewind a log file, or read a terminal
                    cwd="/",
                    env=environment,
                )
            except OSError:
                self._control.close()
                raise
        assert self._process.stderr is not None
        forward_in_thread(self._process.stderr)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, sock: socket.socket) -> ForkedProcess:
        """Fork a decoder with this socket, without waiting for it. If the server has ended, the decoder has, too."""
        exit_pipe, exit_end = os.pipe()
        stderr, stderr_end = os.pipe()
        try:
            with contextlib.suppress(OSError):
                send(self._control, {"do": "fork"}, sock.fileno(), stderr_end, exit_end)
        finally:
            os.close(stderr_end)
            os.close(exit_end)
        forward_in_thread(os.fdopen(stderr, "rb", buffering=0))
        return ForkedProcess(self, exit_pipe)

    def wait(self) -> int:
        """Return the exit code of a server that has ended, or ends now."""
        return self._process.wait()

    def close(self) -> None:
        """End the server."""
        self._control.close()
        self._process.kill()
        self._process.wait()


class ForkedProcess:
    """A process of a fork server, with the interface of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, exit_pipe: int) -> None:
        self.pid = 0  # unknown until `identify`
        self._server, self._exit_pipe = server, exit_pipe
        self._pidfd: int | None = None
        self._code: int | None = None

    def identify(self, pid: int, pidfd: int | None) -> None:
        """Record what the process sent before it opened any file. pidfd: refers to it; None if the system has none."""
        self.pid, self._pidfd = pid, pidfd

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code, negative for a signal. Raises: subprocess.TimeoutExpired."""
        if self._code is None:
            poll = select.poll()
            poll.register(self._exit_pipe, select.POLLIN)
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                raise subprocess.TimeoutExpired("decoder", timeout_s or 0)
            code = os.read(self._exit_pipe, MAX_CODE_BYTES)
            if not code:  # the server has ended: what it forked may still run, and is of no use
                self._send_kill()
            self._code = int(code) if code else self._server.wait()
            for fd in (self._exit_pipe, self._pidfd):
                if fd is not None:
                    os.close(fd)
        return self._code

    def kill(self) -> None:
        """End the process at once. If its process ID is not known yet, it ends when its socket is closed."""
        if self.poll() is None:
            self._send_kill()

    def _send_kill(self) -> None:
        if not self.pid:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)


def forward_in_thread(pipe: IO[bytes]) -> None:
    threading.Thread(target=forward_errors, args=(pipe,), name="decoder-stderr", daemon=True).start()


def forward_errors(pipe: IO[bytes]) -> None:
    """Copy what a process writes to stderr, such as a crash report, to ours: up to MAX_STDERR_BYTES."""
    n_left = MAX_STDERR_BYTES
    with pipe:
        while written := os.read(pipe.fileno(), STDERR_CHUNK_BYTES):
            if n_left > 0 and is_open(2):
                os.write(2, written[:n_left])
            n_left -= len(written)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
