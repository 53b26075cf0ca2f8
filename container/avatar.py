"""`viseme avatar`: packages made, brought, shown and heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage
    from inference.avatar.manifest import Manifest
    from inference.settings import Settings

app = typer.Typer(help="Live avatars: their packages, and films of them.", no_args_is_help=True)
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The package: a folder, still to be made.")]
Checkpoint = Annotated[Path, typer.Option(metavar="CKPT", help="The U-Net: .pth, .safetensors or .onnx.")]
Encoder = Annotated[
    Path | None,
    typer.Option(metavar="CKPT", help="What hears: audio_visual_encoder.pth or the like; the package holds it then."),
]
Mode = Annotated[
    str | None, typer.Option(help="ave, hubert or wenet: the U-Net's audio. Default: what its file tells, else ave.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: VISEME_DEVICE, else auto.")]
Precision = Annotated[str | None, typer.Option(help="auto, f32, f16 or bf16. Default: VISEME_PRECISION, else auto.")]


@app.command()
def build(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A film of one person.")],
    checkpoint: Checkpoint,
    output: Output,
    encoder: Encoder = None,
    lms: Annotated[
        Path | None,
        typer.Option("--landmarks", metavar="DIR", help="0.lms, 1.lms, ...: upstream's 110 points of each frame."),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="NPY", help="Audio features to be packaged: aud_ave.npy.")
    ] = None,
    mode: Mode = None,
) -> None:
    """Make an avatar package out of a film and the U-Net that was trained on it."""
    from inference.avatar.crops import open_array
    from inference.avatar.prepare import Sitting, build_package
    from inference.faces.load import load_landmarker
    from inference.settings import Settings

    check_mode(mode)
    settings = Settings.from_env()
    given = None if features is None else open_array(features)
    with show_progress() as progress:
        task = progress.add_task(video.name, total=None)
        manifest = build_package(
            Sitting(video, checkpoint, encoder, lms, given, mode),
            output,
            load_landmarker("mediapipe", settings.weight_sources),
            limits=settings.media_limits,
            progress=lambda done: progress.update(task, completed=done),
        )
    report(manifest, output)


@app.command(name="import")
def bring(
    source: Annotated[Path, typer.Argument(metavar="SEED_PACKAGE", help="A package of SyncTalk_2D's servers.")],
    output: Output,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="The U-Net, instead of the one in the package.")
    ] = None,
    encoder: Encoder = None,
    mode: Mode = None,
) -> None:
    """Bring a seed package into ours; what is contradictory in it is named on stderr."""
    from inference.avatar.bring import import_package
    from inference.settings import Settings

    check_mode(mode)
    limits = Settings.from_env().media_limits
    manifest, notes = import_package(source, output, checkpoint, encoder, mode, limits)
    for note in notes:
        complain(f"note: {note}")
    report(manifest, output)


@app.command()
def info(
    avatar: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A package, or the name of one.")],
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a contact sheet: frames, crops, and what is painted.")
    ] = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Print what a package is, as JSON, its files checked."""
    from inference.settings import Settings

    settings = Settings.from_env()
    package = load(avatar, settings, device, precision)
    typer.echo(json.dumps(package.describe()))
    if sheet is not None:
        from container.sheets import write_sheet

        write_sheet(package, sheet)
        complain(f"wrote {sheet}")


@app.command()
def speak(
    avatar: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A package, or the name of one.")],
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="What it is to say: any file with sound.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="The film.")],
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Have an avatar say what is heard, and write the film; it appears whole or not at all."""
    from inference.avatar.speak import speak_film
    from inference.settings import Settings

    settings = Settings.from_env()
    package = load(avatar, settings, device, precision)
    with show_progress() as progress:
        task = progress.add_task(audio.name, total=None)
        spoken = speak_film(
            package,
            audio,
            output,
            settings.media_limits,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for warning in spoken.warnings:
        complain(f"warning: {warning}")
    complain(f"wrote {output}: {spoken.num_frames} frames, {spoken.duration_s:g} s, {spoken.width}x{spoken.height}")


def load(avatar: str, settings: Settings, device: str | None, precision: str | None) -> AvatarPackage:
    from inference.avatar import AvatarPackage

    return AvatarPackage.load(avatar, device or settings.device, precision or settings.precision, settings)


def check_mode(mode: str | None) -> None:
    if mode not in (None, "ave", "hubert", "wenet"):
        raise InvalidRequest(f"--mode {mode!r}: expected ave, hubert or wenet")


def report(manifest: Manifest, output: Path) -> None:
    size = sum(file.n_bytes for file in manifest.files.values()) / 1e6
    complain(f"wrote {output}: {manifest.frames} frames of {manifest.width}x{manifest.height}, {size:.0f} MB")


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo("viseme: " + " ".join(message.split()), err=True)


def show_progress() -> Progress:
    """A bar on stderr where a person watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
