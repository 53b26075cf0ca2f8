"""What all commands share: exit codes, messages, the progress bar, and options that several commands have."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EXIT_OK, EXIT_INTERNAL, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT


class DeviceName(StrEnum):
    """Devices that models can run on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionName(StrEnum):
    """Precisions that models can run in; which of them a model supports depends on its weights and the device."""

    auto = "auto"
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    int8 = "int8"


class EncoderName(StrEnum):
    """Encoders of H.264."""

    auto = "auto"
    libx264 = "libx264"
    h264_nvenc = "h264_nvenc"


DeviceOption = Annotated[
    DeviceName | None, typer.Option("--device", help="Device to run on. Default: VISEME_DEVICE, else auto.")
]
PrecisionOption = Annotated[
    PrecisionName | None,
    typer.Option("--precision", help="Precision to run in. Default: VISEME_PRECISION, else auto."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads to use. Default: VISEME_THREADS, else OMP_NUM_THREADS, else all cores.",
    ),
]
VideoEncoderOption = Annotated[
    EncoderName | None,
    typer.Option(
        "--encoder",
        help="Encoder of the video; auto: the GPU's if there is one. Default: VISEME_ENCODER, else auto.",
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="NAME|PATH",
        help="Weights: a name from 'viseme weights list', a file, s3://bucket/key or hf://owner/name.",
    ),
]
FaceOption = Annotated[
    str,
    typer.Option(
        "--face",
        metavar="largest|INDEX",
        help="Whose lips: the largest face, or an index from 0, counted left to right in the first frame that "
        "shows enough faces.",
    ),
]


class OutputClosed(Exception):
    """The reader of our stdout has closed it, as `head` does. Not an error."""


def print_line(line: str) -> None:
    """Print one line of results on stdout. Raises: OutputClosed if its reader has closed the pipe."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError as err:
        raise OutputClosed from err


def print_note(message: str) -> None:
    """Print a message as one line on stderr."""
    typer.echo("viseme: " + " ".join(message.split()), err=True)


def print_error(message: str) -> None:
    """Print the reason of a failure as one line on stderr."""
    print_note(message)


class HiddenProgress:
    """Has the methods of `rich.progress.Progress` that commands call, and shows nothing."""

    def add_task(self, *_: Any, **_fields: Any) -> int:
        """Return the number of a task."""
        return 0

    def change(self, *_: Any, **_fields: Any) -> None:
        """Show nothing."""

    remove_task = update = advance = start = stop = change


@contextmanager
def report_progress() -> Iterator[Progress]:
    """Show a bar with the time left for each task, on stderr and only if that is a terminal."""
    if not sys.stderr.isatty():
        yield cast("Progress", HiddenProgress())
        return
    # Takes a twentieth of a second to import, which scripts need not spend.
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        yield progress


@contextmanager
def pause_progress(progress: Progress, finished: TaskID | None = None) -> Iterator[None]:
    """Remove the bar from the screen while lines are printed, because it would overwrite them.

    finished: a task whose bar does not return.
    """
    if finished is not None:
        progress.remove_task(finished)
    progress.stop()
    yield
    progress.start()


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage while libraries are imported and models loaded: all of it stays, and there is much to visit.

    It takes a tenth of the time of such a start. Later collections leave it out, too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def make_progress_callback(progress: Progress, task: TaskID) -> Callable[[float, float | None], None]:
    """Return a function that sets what is completed of a task, and of which total."""
    return lambda completed, total: progress.update(task, completed=completed, total=total)


def parse_face(text: str) -> int | Literal["largest"]:
    """Parse the value of --face. Raises: InvalidRequest if it is neither 'largest' nor a number from 0 up."""
    if text == "largest":
        return "largest"
    if text.isdecimal():
        return int(text)
    raise InvalidRequest(f"--face {text!r}: expected 'largest' or a number from 0 up")
