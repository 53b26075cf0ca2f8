"""`viseme sync`: a face and a voice become a talking film."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.faces import FaceChoice
    from inference.lip_sync import LipSyncer, SyncOptions, SyncResult
    from inference.settings import Settings

LARGEST = "largest"


class EnhanceName(StrEnum):
    """What makes mouths sharper."""

    none = "none"
    swin2sr = "swin2sr"


class ReferenceName(StrEnum):
    """The face that a network is shown whole."""

    steady = "steady"
    each = "each"


class LoopName(StrEnum):
    """What follows the last frame of a film that is shorter than the voice."""

    pingpong = "pingpong"
    restart = "restart"


def sync(
    face: Annotated[Path, typer.Argument(metavar="FACE", help="A film or a picture of a face.")],
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="What it is to say: any file with sound.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="The film.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Wav2Lip weights: starter, a file, s3://bucket/key, or wav2lip, wav2lip_gan from SM_MODEL_DIR or the "
            "cache. May repeat: one pass writes OUT.NAME.mp4 for each.",
        ),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Default: the film's own; 25 for a picture.")] = None,
    resize_factor: Annotated[int, typer.Option(help="Divide the frames' sides by 1, 2 or 4.")] = 1,
    pads: Annotated[
        tuple[int, int, int, int], typer.Option(metavar="T B L R", help="Pixels added to the face's box.")
    ] = (0, 10, 0, 0),
    nosmooth: Annotated[bool, typer.Option("--nosmooth", help="Do not smooth the face's box over time.")] = False,
    loop: Annotated[LoopName | None, typer.Option(help="Where the voice outlasts the film. Default: pingpong.")] = None,
    reference: Annotated[
        ReferenceName | None,
        typer.Option(help="The face shown whole: one while it fits, or each frame itself. Default: steady."),
    ] = None,
    which: Annotated[
        str, typer.Option("--face", metavar="largest|INDEX", help="Whose lips; counted from 0, left to right.")
    ] = LARGEST,
    enhance: Annotated[
        EnhanceName,
        typer.Option(help="swin2sr: sharper mouths, seconds for each frame; weights from the Hub (Apache-2.0)."),
    ] = EnhanceName.none,
    parity: Annotated[
        bool, typer.Option("--parity", help="Do as upstream's inference.py does, faults and all; needs s3fd.pth.")
    ] = False,
    s3fd: Annotated[Path | None, typer.Option(metavar="PATH", help="Upstream's face detector, for --parity.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also a picture of twelve moments with the sound's spectrogram under them."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: VISEME_DEVICE, else auto.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto, f32, f16, bf16; int8 where the weights are. Default: VISEME_PRECISION, else auto."),
    ] = None,
) -> None:
    """Have a face say what is heard, and write the film; it appears whole or not at all."""
    from container.sheet import check_sheet
    from inference.lip_sync import PARITY, Pads, SyncOptions
    from inference.settings import Settings

    if sheet is not None:
        check_sheet(sheet)
    settings = Settings.from_env()
    options = replace(
        PARITY if parity else SyncOptions(),
        fps=fps,
        resize_factor=resize_factor,
        pads=Pads(*pads),
        face=parse_face(which),
        enhance=enhance.value,
    )
    syncer = load_syncer(settings, checkpoint, s3fd, device, precision)
    result = film(syncer, face, audio, refine(options, nosmooth=nosmooth, loop=loop, reference=reference), output)
    report(result)
    if sheet is not None:
        draw_sheets(result, sheet, settings)


def load_syncer(
    settings: Settings, checkpoints: list[str] | None, s3fd: Path | None, device: str | None, precision: str | None
) -> LipSyncer:
    """What is asked for on top of the settings; the starter where neither they nor a model folder name weights."""
    from inference.lip_sync import LipSyncer, TrackCache

    return LipSyncer(
        checkpoints=checkpoints or None if checkpoints or settings.model_dir else ("starter",),
        device=device or settings.device,
        precision=precision or settings.precision,
        s3fd=s3fd,
        settings=settings,
        tracks=TrackCache(settings.tracks_cache),
    )


def film(syncer: LipSyncer, face: Path, audio: Path, options: SyncOptions, output: Path) -> SyncResult:
    """Write the film, and show how far it is."""
    for warning in syncer.warnings:
        complain(f"warning: {warning}")
    with show_progress() as progress:
        task = progress.add_task(face.name, total=None)
        return syncer.sync(
            face, audio, options, output, lambda done, total: progress.update(task, completed=done, total=total)
        )


def refine(
    options: SyncOptions, *, nosmooth: bool, loop: LoopName | None, reference: ReferenceName | None
) -> SyncOptions:
    """The options that a flag alone changes, on top of either set."""
    if nosmooth:
        options = replace(options, smoothing="none")
    if reference is not None:
        options = replace(options, reference=reference.value)
    return options if loop is None else replace(options, loop=loop.value)


def draw_sheets(result: SyncResult, sheet: Path, settings: Settings) -> None:
    """One for each film; of several each has its checkpoint's name before the suffix, as the films have."""
    from container.sheet import write_sheet
    from inference.faces.load import load_landmarker

    landmarker = load_landmarker("mediapipe", settings.weight_sources)
    for one in result.outputs:
        assert one.path is not None
        path = sheet if len(result.outputs) == 1 else sheet.with_name(f"{sheet.stem}.{one.model}{sheet.suffix}")
        write_sheet(one.path, path, landmarker, settings.media_limits)
        complain(f"wrote {path}")


def report(result: SyncResult) -> None:
    for one in result.outputs:
        complain(f"wrote {one.path}: {one.num_frames} frames, {one.duration_s:g} s, {result.width}x{result.height}")
    if result.frames_without_face:
        complain(f"{result.frames_without_face} of {result.num_frames} frames show no face and are as they were")


def parse_face(text: str) -> FaceChoice:
    """'largest', or a number from 0 up."""
    if text == LARGEST:
        return "largest"
    if text.isdecimal():
        return int(text)
    raise InvalidRequest(f"--face {text!r}: expected 'largest' or a number from 0 up")


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo("viseme: " + " ".join(message.split()), err=True)


def show_progress() -> Progress:
    """A bar on stderr where a person watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
