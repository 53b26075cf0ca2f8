"""Run a program that is asked to end (SIGTERM) when its parent ends, even if that is killed.

    python -m deploy.dev.parent_death PROGRAM ARGUMENT...

Source: prctl(2), PR_SET_PDEATHSIG, which survives execve. Only Linux has it; elsewhere the program just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Become the program."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
