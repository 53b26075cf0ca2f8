"""`viseme`: the command line.

Results go to stdout, progress and messages to stderr. Exit codes: 0 success, 1 internal error, 2 usage error.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from container.commands.console import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    OutputClosed,
    print_error,
    print_line,
    without_collections,
)
from inference.errors import CallerError, DeviceUnavailable, VisemeError

logger = logging.getLogger("viseme")

COMMANDS = {  # in the order of use: name, the function or Typer app, and the first sentence of its help
    "read": ("container.commands.read:read", "Read the lips in videos and print the text."),
    "sync": ("container.commands.sync:sync", "Lip-sync a face to an audio file and write the video."),
    "visemes": (
        "container.commands.visemes:visemes",
        "Estimate the visemes of speech, with their times, and print them.",
    ),
    "avatar": ("container.commands.avatar:app", "Build, import, inspect and render live avatars."),
    "serve": (
        "container.commands.serve:serve",
        "Serve lip reading, lip sync and live avatars over HTTP, WebSocket and gRPC.",
    ),
    "worker": (
        "container.commands.worker:worker",
        "Run the jobs that servers with the same database accept, one at a time.",
    ),
    "jobs": ("container.commands.jobs:app", "Submit, watch and download the durable jobs of a server."),
    "dev": ("container.commands.dev:dev", "Run an AWS account on this machine: the stack, and an endpoint."),
    "doctor": (
        "container.commands.doctor:doctor",
        "Check a container against SageMaker's contract, or an endpoint on AWS.",
    ),
    "render": (
        "container.commands.render:render",
        "Render a synthetic speaker who says a text; write the video and its ground truth.",
    ),
    "eval": ("container.commands.evaluate:evaluate", "Evaluate lip reading on clips with known transcripts."),
    "weights": ("container.commands.weights:app", "List, fetch, verify and convert model weights."),
}


class LazyCommand(TyperCommand):
    """A command whose module is imported when it is called, completed or asked for its help, not to list it."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        """target: `module:attribute` of a function or a Typer app."""
        super().__init__(name, help=summary, short_help=summary)
        self._target = target

    def load(self) -> Any:
        """Import the module and return its command or group."""
        module, _, attribute = self._target.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(self.name)(function)
        return typer.main.get_command(found)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Hand over to the command itself."""
        with without_collections():  # to parse options, Typer imports pydantic
            return self.load().make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """The commands of COMMANDS."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (target, summary) in COMMANDS.items():
            self.add_command(LazyCommand(name, target, summary))


app = typer.Typer(name="viseme", cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def print_version(is_requested: bool) -> None:
    """Print the version and exit, if it is requested."""
    if is_requested:
        from importlib.metadata import version  # takes 25 ms, which no other call should pay

        print_line(f"viseme {version('viseme')}")
        raise typer.Exit


@app.callback()
def viseme(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Read lips, sync lips to speech, and run live avatars."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; report every failure in one line on stderr."""
    # Pydantic would search all installed packages for plugins, in a twentieth of a second; workers inherit this.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    # Python collects garbage once more when it exits, which takes a twelfth of the time of a short run.
    atexit.register(gc.freeze)
    try:
        code = app(arguments, prog_name="viseme", standalone_mode=False)
    except (TyperException, CallerError, DeviceUnavailable) as err:
        message = err.format_message() if isinstance(err, TyperException) else str(err)
        if message:  # empty if the help was printed because no command was given
            print_error(message)
        return EXIT_USAGE
    except (VisemeError, OSError) as err:  # such as a full disk or a folder that cannot be written
        print_error(str(err))
        return EXIT_INTERNAL
    except OutputClosed:
        # Python flushes stdout at exit and would report the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted")
        return EXIT_INTERRUPTED
    except Exception:
        logger.exception("internal error; please report it")
        return EXIT_INTERNAL
    return code if isinstance(code, int) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
