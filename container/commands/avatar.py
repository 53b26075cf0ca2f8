"""`viseme avatar`: packages of live avatars, and videos rendered with them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.avatar_livekit import livekit
from container.commands.console import (
    EXIT_INTERNAL,
    DeviceOption,
    PrecisionOption,
    ThreadsOption,
    VideoEncoderOption,
    make_progress_callback,
    print_error,
    print_line,
    print_note,
    report_progress,
)
from container.commands.output_files import ForceOption, choose_target
from inference.errors import InvalidRequest

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from inference.avatar import AvatarPackage
    from inference.avatar.manifest import Manifest
    from inference.avatar.render_video import RenderedVideo
    from inference.settings import Settings

app = typer.Typer(help="Build, import, inspect and render live avatars.", no_args_is_help=True, add_completion=False)
AvatarArgument = Annotated[str, typer.Argument(metavar="DIR|NAME", help="Package folder, or the name of an avatar.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Package folder to create; it must not exist yet.")
]
CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", metavar="CKPT", help="U-Net checkpoint: .pth, .safetensors or .onnx.")
]
EncoderOption = Annotated[
    Path | None,
    typer.Option(
        "--encoder", metavar="CKPT", help="Audio encoder checkpoint (audio_visual_encoder.pth) to store in the package."
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="Audio features of the U-Net: ave, hubert or wenet. Default: as its checkpoint says, else ave.",
    ),
]
LookAheadOption = Annotated[
    int | None,
    typer.Option(
        "--look-ahead",
        metavar="WINDOWS",
        help="How far frames of these weights look ahead, -1 to 6 windows of 40 ms. Default: 6, as published ones.",
    ),
]


@app.command()
def build(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video of one person.")],
    checkpoint: CheckpointOption,
    output: OutputOption,
    encoder: EncoderOption = None,
    landmarks: Annotated[
        Path | None,
        typer.Option("--landmarks", metavar="DIR", help="Upstream's 110 landmarks of each frame: 0.lms, 1.lms, ... "),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="NPY", help="Audio features to store in the package, such as aud_ave.npy."),
    ] = None,
    mode: ModeOption = None,
    look_ahead: LookAheadOption = None,
) -> None:
    """Build an avatar package from a video and the U-Net trained on it."""
    check_mode(mode)

    from inference.audio.avatar_features import LAST_WINDOW
    from inference.avatar.build import AvatarSource, build_package
    from inference.avatar.crops import open_npy
    from inference.faces.load import load_landmarker
    from inference.settings import Settings

    settings = Settings.from_env()
    packaged_features = None if features is None else open_npy(features)
    n_ahead = LAST_WINDOW if look_ahead is None else look_ahead
    source = AvatarSource(video, checkpoint, encoder, landmarks, packaged_features, mode, n_ahead)
    warnings: list[str] = []
    with report_progress() as progress:
        task = progress.add_task(video.name, total=None)
        manifest = build_package(
            source,
            output,
            load_landmarker("mediapipe", settings.weight_sources),
            limits=settings.media_limits,
            progress=lambda completed: progress.update(task, completed=completed),
            warn=warnings.append,
        )
    for warning in warnings:
        print_note(f"warning: {warning}")
    print_package(manifest, output)


@app.command(name="import")
def import_seed(
    source: Annotated[Path, typer.Argument(metavar="SEED_PACKAGE", help="Package of the older SyncTalk_2D servers.")],
    output: OutputOption,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="CKPT", help="U-Net checkpoint to use instead of the one in the package."),
    ] = None,
    encoder: EncoderOption = None,
    mode: ModeOption = None,
    look_ahead: LookAheadOption = None,
) -> None:
    """Import a seed package (of the older servers) as an avatar package.

    Inconsistencies in it are reported on stderr.
    """
    check_mode(mode)

    from inference.audio.avatar_features import LAST_WINDOW
    from inference.avatar.import_seed import import_package
    from inference.settings import Settings

    limits = Settings.from_env().media_limits
    n_ahead = LAST_WINDOW if look_ahead is None else look_ahead
    manifest, notes = import_package(source, output, checkpoint, encoder, mode, limits, look_ahead=n_ahead)
    for note in notes:
        print_note(f"note: {note}")
    print_package(manifest, output)


@app.command()
def info(
    avatar: AvatarArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also write a contact sheet of frames, crops and generated mouths."),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Check the files of an avatar package and print a description as JSON."""
    from container.visuals.avatar_sheet import write_avatar_sheet
    from inference.settings import Settings

    package = load_package(avatar, Settings.from_env().with_overrides(threads=threads), device, precision)
    print_line(json.dumps(package.describe()))
    if sheet is not None:
        write_avatar_sheet(package, sheet)
        print_note(f"wrote {sheet}")


@app.command()
def speak(
    avatar: AvatarArgument,
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="Speech: any audio file, or video with audio.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="Video to write.")],
    force: ForceOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="NAME",
            help="Render on this SageMaker endpoint instead, in real time. Needs the extra sagemaker-live.",
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="AWS region of the endpoint. Default: AWS_DEFAULT_REGION, else the profile's.")
    ] = None,
    encoder: VideoEncoderOption = None,
) -> None:
    """Render an avatar speaking an audio file and write the video.

    The file appears when it is complete; if anything fails, nothing is written.
    """
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(encoder=encoder, threads=threads)
    target = choose_target(output, (audio,), force=force)
    if endpoint is not None:
        speak_on_endpoint(endpoint, region, avatar, audio, target, settings)
        return
    print_rendered(render(avatar, audio, audio.name, target, settings, device, precision), output)


@app.command()
def say(
    avatar: AvatarArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words to speak, at most 2000 characters.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="Video to write.")],
    language: Annotated[str, typer.Option(help="Language of the text, such as en, en-us or de.")] = "en",
    rate: Annotated[int, typer.Option(help="Words a minute, 80 to 450.")] = 175,
    voice: Annotated[
        str | None, typer.Option(help="Voice of Kokoro, such as af_heart. Default: by the language.")
    ] = None,
    force: ForceOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    encoder: VideoEncoderOption = None,
) -> None:
    """Render an avatar speaking a text and write the video.

    espeak-ng speaks, if it is installed, or Kokoro with VISEME_TTS=kokoro. The file appears when it is complete.
    """
    from container.speech.load import load_synthesizer
    from container.speech.requests import SpeechRequest
    from inference.requests.body import validate
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(encoder=encoder, threads=threads)
    target = choose_target(output, (), force=force)
    fields = {"text": text, "language": language, "rate": rate, "voice": voice}
    speech = asyncio.run(load_synthesizer(settings).synthesize(validate(SpeechRequest, fields)))
    print_rendered(render(avatar, speech, "text", target, settings, device, precision), output)


app.command()(livekit)


def render(
    avatar: str,
    audio: Path | bytes,
    name: str,
    target: Path,
    settings: Settings,
    device: str | None,
    precision: str | None,
) -> RenderedVideo:
    """Render an avatar speaking, and write the video. name: of the audio, for the progress."""
    from inference.avatar.render_video import render_video

    package = load_package(avatar, settings, device, precision)
    with report_progress() as progress:
        task = progress.add_task(name, total=None)
        return render_video(
            package,
            audio,
            target,
            settings.media_limits,
            progress=make_progress_callback(progress, task),
            encoder=settings.encoder,
        )


def print_rendered(result: RenderedVideo, output: Path) -> None:
    """Print what was written on stderr."""
    for warning in result.warnings:
        print_note(f"warning: {warning}")
    print_note(f"wrote {output}: {result.num_frames} frames, {result.duration_s:g} s, {result.width}x{result.height}")


def speak_on_endpoint(
    endpoint: str, region: str | None, avatar: str, audio: Path, target: Path, settings: Settings
) -> None:
    """Record a live session on a SageMaker endpoint. Raises: InvalidRequest, MediaError, OSError."""
    from container.client import LiveClient
    from container.rejections import RequestRejected
    from container.speech_recording import record_speech

    url = f"sagemaker://{endpoint}" + (f"?region={region}" if region else "")
    try:
        with LiveClient(url, avatar, frames="whole") as client, report_progress() as progress:
            task = progress.add_task(audio.name, total=None)
            callback = make_progress_callback(progress, task)
            result = record_speech(client, audio, target, settings.media_limits, callback)
    except (ModuleNotFoundError, ValueError) as err:
        raise InvalidRequest(f"--endpoint {endpoint}: {err}") from err
    except RequestRejected as err:
        print_error(f"{endpoint}: {err} ({err.code})")
        raise typer.Exit(EXIT_INTERNAL) from err
    for warning in result.warnings:
        print_note(f"warning: {warning}")
    if result.n_repeated:
        print_note(f"warning: {result.n_repeated} frames did not arrive in time; the frame before stays in their place")
    print_note(f"wrote {target}: {result.num_frames} frames, {result.duration_s:g} s, {result.width}x{result.height}")


def load_package(avatar: str, settings: Settings, device: str | None, precision: str | None) -> AvatarPackage:
    """Load a package; options that are not given are those of the settings."""
    from inference.avatar import AvatarPackage
    from inference.backends.threads import limit_threads

    limit_threads(settings.wanted_threads)
    return AvatarPackage.load(avatar, device or settings.device, precision or settings.precision, settings)


def check_mode(mode: str | None) -> None:
    """Raise InvalidRequest if the mode is not one of the U-Net's."""
    if mode not in (None, "ave", "hubert", "wenet"):
        raise InvalidRequest(f"--mode {mode!r}: expected ave, hubert or wenet")


def print_package(manifest: Manifest, output: Path) -> None:
    """Print what was written on stderr."""
    size_mb = sum(file.n_bytes for file in manifest.files.values()) / 1e6
    print_note(f"wrote {output}: {manifest.frames} frames of {manifest.width}x{manifest.height}, {size_mb:.0f} MB")
