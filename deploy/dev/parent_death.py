"""Run a program that is asked to end (SIGTERM) when its parent ends, even if that is killed.

    python -m deploy.dev.parent_death PID_OF_PARENT PROGRAM ARGUMENT...

Source: prctl(2), PR_SET_PDEATHSIG, which survives execve. Only Linux has it; elsewhere the program just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the program, unless the parent has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before that call
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - without a shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
