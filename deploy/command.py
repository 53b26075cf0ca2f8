"""Exit codes and error output shared by the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from deploy.errors import DeployError
from deploy.waiting import write_stderr

EXIT_OK = 0
EXIT_INTERRUPTED = 130  # as shells report Ctrl-C
EXIT_BROKEN_PIPE = 141  # as shells report SIGPIPE


def run_command(
    name: str, run: Callable[[], None], interrupted: str = "stopped waiting; the operation continues on AWS"
) -> int:
    """Run a command and report its errors on stderr.

    interrupted: the message for Ctrl-C.
    Returns: the exit code: 0 done, 2 wrong arguments, 1 any other failure, 130 interrupted, 141 stdout was closed.
    """
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:  # such as `| head`: no more is read, which is no error
        # Python flushes stdout again when it ends, and would print what happens then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except DeployError as err:
        write_stderr(f"{name}: {err}")
        return err.exit_code
    except KeyboardInterrupt:
        write_stderr(f"{name}: {interrupted}")
        return EXIT_INTERRUPTED
    return EXIT_OK
