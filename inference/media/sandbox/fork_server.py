"""The process that decoders are forked from: `python -m inference.media.sandbox.fork_server`, its socket as stdin.

It has imported what decoding needs: a fork behind walls takes 15 ms, a new interpreter 300. It opens no media, and
receives nothing but file descriptors from its parent; see `forked_process`. It has no network and no folders itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

from inference.media.sandbox import child
from inference.media.sandbox.confinement import Wall, confine_server, deny_inspection
from inference.media.sandbox.messages import receive

CONTROL_FD = child.SOCKET_FD
STDERR_FD = 2
MAX_OOM_SCORE = "1000"  # the kernel's highest: decoders are killed before the process that holds the models


def main() -> None:
    """Fork decoders until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent handles it
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that the wake-up is written
    wake_up, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(written)
    control = socket.socket(fileno=CONTROL_FD)
    walls = prepare_for_forks()
    exits: dict[int, int] = {}  # by process ID: the pipe for its exit code
    poll = select.poll()
    for fd in (control.fileno(), wake_up):
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if wake_up in ready:
            os.read(wake_up, 4096)
            report_exits(exits)
        if CONTROL_FD in ready:
            try:
                _, (sock, stderr, exit_pipe) = receive(control, max_files=3)
            except (EOFError, ValueError):
                return  # the parent is gone
            pid = os.fork()
            if not pid:
                run_decoder(control, sock, stderr, (exit_pipe, *exits.values(), wake_up, written), walls)
            exits[pid] = exit_pipe
            os.close(sock)
            os.close(stderr)


def prepare_for_forks() -> frozenset[Wall]:
    """Do what decoders inherit. Returns: the walls that they have."""
    with contextlib.suppress(OSError):  # a sandbox may deny access to /proc; then the kernel chooses
        Path("/proc/self/oom_score_adj").write_text(MAX_OOM_SCORE)
    time.tzset()  # reads a file; log lines need it
    deny_inspection()  # a decoder without seccomp could take over this process
    walls = confine_server()
    gc.collect()
    gc.freeze()  # a collection would copy the pages of all objects
    return walls


def run_decoder(control: socket.socket, sock: int, stderr: int, others: Iterable[int], walls: Collection[Wall]) -> None:
    """Run a decoder, and end the process. others: descriptors that it must not have. walls: that it has."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.detach()
        os.dup2(sock, CONTROL_FD)
        os.dup2(stderr, STDERR_FD)
        for fd in (sock, stderr, *others):
            os.close(fd)
        child.main(walls)
        code = 0
    except BaseException:  # noqa: BLE001 - of a process, to its stderr
        traceback.print_exc()
    finally:
        os._exit(code)


def report_exits(exits: dict[int, int]) -> None:
    """Write the exit codes of decoders that have ended to their pipes."""
    while exits:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        pipe = exits.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # the parent does not wait for it
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(pipe)


if __name__ == "__main__":
    main()
