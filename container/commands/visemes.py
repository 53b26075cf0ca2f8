"""`viseme visemes`: the visemes of speech."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from container.commands.console import (
    OutputClosed,
    ThreadsOption,
    make_progress_callback,
    print_note,
    report_progress,
)
from container.commands.output_files import ForceOption, choose_target
from inference.atomic_write import atomic_file
from inference.errors import StorageError

# The engine is imported in the functions that use it: OpenVINO takes a while to import, and neither help nor completion
# must wait for it.
if TYPE_CHECKING:
    from inference.visemes import VisemeEstimator


class VisemeFormatName(StrEnum):
    """Formats that `visemes` writes."""

    json = "json"
    tsv = "tsv"
    srt = "srt"


def visemes(
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="Speech: an audio file, or a video with audio.")],
    output_format: Annotated[
        VisemeFormatName,
        typer.Option(
            "--format",
            help="json: segments with their times, and frames of 40 ms. tsv: a row for each segment. srt: subtitles.",
        ),
    ] = VisemeFormatName.json,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write instead of stdout.")
    ] = None,
    force: ForceOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Estimate the visemes of speech, with their times, and print them.

    For each viseme: its start and end, the phoneme, the weights of Oculus's
    15 visemes, and 13 blendshapes of ARKit.
    """
    target = None if output is None else choose_target(output, (audio,), force=force)

    from inference.backends.device import count_threads
    from inference.settings import Settings
    from inference.visemes import VisemeEstimator

    settings = Settings.from_env().with_overrides(threads=threads)
    estimator = VisemeEstimator(count_threads(settings.wanted_threads), settings.media_limits)
    if target is None:
        try:
            write_to(sys.stdout, estimator, audio, output_format)
            sys.stdout.flush()
        except BrokenPipeError as err:
            raise OutputClosed from err
        return
    try:
        with atomic_file(target, make_parents=True) as part, part.open("w", encoding="utf-8") as file:
            write_to(file, estimator, audio, output_format)
    except OSError as err:
        raise StorageError(f"{target}: could not be written ({err.strerror or err})") from err
    print_note(f"wrote {target}")


def write_to(file: IO[str], estimator: VisemeEstimator, audio: Path, output_format: VisemeFormatName) -> None:
    """Write the visemes of a file, with a progress bar, then its warnings to stderr."""
    from inference.visemes.estimator import EstimateInfo
    from inference.visemes.formats import write_visemes

    info = EstimateInfo()
    with report_progress() as progress:
        report = make_progress_callback(progress, progress.add_task(audio.name, total=None))
        write_visemes(file, estimator.updates(audio, info, report), info, output_format.value)
    for warning in info.warnings:
        print_note(f"warning: {warning}")
