"""Exit codes and error output shared by the commands."""

from __future__ import annotations

from collections.abc import Callable

from deploy.errors import DeployError
from deploy.waiting import write_stderr

EXIT_OK = 0
EXIT_INTERRUPTED = 130  # as shells report Ctrl-C


def run_command(
    name: str, run: Callable[[], None], interrupted: str = "stopped waiting; the operation continues on AWS"
) -> int:
    """Run a command and report its errors on stderr.

    interrupted: the message for Ctrl-C.
    Returns: the exit code: 0 done, 2 wrong arguments, 1 any other failure, 130 interrupted.
    """
    try:
        run()
    except DeployError as err:
        write_stderr(f"{name}: {err}")
        return err.exit_code
    except KeyboardInterrupt:
        write_stderr(f"{name}: {interrupted}")
        return EXIT_INTERRUPTED
    return EXIT_OK
