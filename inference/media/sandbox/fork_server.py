"""The process that decoders are forked from: `python -m inference.media.sandbox.fork_server`, its socket as stdin.

It has imported what decoding needs: a fork behind walls takes 15 ms, a new interpreter 300. It opens no media, and
receives nothing but file descriptors from its parent; see `forked_process`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import traceback
from collections.abc import Iterable

from inference.media.sandbox import child
from inference.media.sandbox.messages import receive

CONTROL_FD = child.SOCKET_FD
STDERR_FD = 2


def main() -> None:
    """Fork decoders until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent handles it
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that the wake-up is written
    wake_up, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(written)
    control = socket.socket(fileno=CONTROL_FD)
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
            fork_decoder(control, sock, stderr, exit_pipe, exits, (wake_up, written))


def fork_decoder(
    control: socket.socket, sock: int, stderr: int, exit_pipe: int, exits: dict[int, int], others: Iterable[int]
) -> None:
    """Fork a decoder. exits: gets its pipe. others: descriptors that it must not have."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.detach()
            os.dup2(sock, CONTROL_FD)
            os.dup2(stderr, STDERR_FD)
            for fd in (sock, stderr, exit_pipe, *exits.values(), *others):
                os.close(fd)
        run_decoder()
    exits[pid] = exit_pipe
    os.close(sock)
    os.close(stderr)


def run_decoder() -> None:
    """Run a decoder, and end the process."""
    code = 1
    try:
        child.main()
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
