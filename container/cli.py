"""`viseme`: the terminal.

Data go to stdout, progress and messages to stderr. Exit codes: 0 done, 2 the caller's mistake, 1 ours.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typer.exceptions import TyperException

from container.avatar import app as avatar_app
from container.evaluate import evaluate
from container.render import render
from container.sync import sync
from container.transcripts import Format, as_text, check_output, write_transcript
from inference.errors import CallerError, DeviceUnavailable, InvalidRequest, VisemeError

if TYPE_CHECKING:
    from inference.faces import FaceChoice
    from inference.lip_reading import LipReader, ReadOptions, Transcript
    from inference.settings import Settings
    from inference.conversion.architectures import Architecture
    from inference.conversion.int8_lip_coord_net import Sample

DONE, OURS, CALLERS = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT

app = typer.Typer(
    name="viseme",
    help="Reads lips and moves lips.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="The model weights: which there are, fetching and checking them.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(avatar_app, name="avatar")
app.command()(render)
app.command()(sync)
app.command(name="eval")(evaluate)


@app.callback()
def viseme() -> None:
    """Reads lips and moves lips."""


class DecoderName(StrEnum):
    """How `read` turns logits into text."""

    auto = "auto"
    greedy = "greedy"
    grammar = "grammar"


class LandmarksName(StrEnum):
    """Which landmarker `read` uses."""

    mediapipe = "mediapipe"
    dlib = "dlib"


class FormName(StrEnum):
    """What `weights convert` writes."""

    safetensors = "safetensors"
    onnx = "onnx"
    openvino = "openvino"


class StoredPrecision(StrEnum):
    """In which precision `weights convert` stores weights."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    int8 = "int8"


class DeviceName(StrEnum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionName(StrEnum):
    """In which precision models run."""

    auto = "auto"
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    int8 = "int8"


@app.command()
def read(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Videos of a talking face.")],
    output: Annotated[
        Format,
        typer.Option(
            "--format",
            help="txt: the words. json: one object a line, with times. srt, vtt, tsv: captions. all: a file each.",
        ),
    ] = Format.txt,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", metavar="DIR", help="Write VIDEO.txt, VIDEO.srt, ... there instead of printing."),
    ] = None,
    burnt: Annotated[
        bool, typer.Option("--burn", help="Write VIDEO.captioned.mp4, too, with the captions in its pictures.")
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH", help="A set (see 'viseme weights list'), a file, s3://bucket/key or hf://owner/name."
        ),
    ] = "starter",
    decoder: Annotated[
        DecoderName,
        typer.Option(
            help="greedy: whatever letters. grammar: sentences of the GRID corpus. auto: what the weights speak."
        ),
    ] = DecoderName.auto,
    nbest: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many readings the grammar decoder tells in the JSON's 'alternatives'."),
    ] = None,
    landmarks: Annotated[
        LandmarksName | None, typer.Option(help="Landmarker; by default the one the weights were trained with.")
    ] = None,
    face: Annotated[
        str,
        typer.Option(
            metavar="largest|INDEX",
            help="Whose lips: the largest face, or one counted from 0, left to right, "
            "in the first frame that shows so many.",
        ),
    ] = "largest",
    exact: Annotated[bool, typer.Option("--exact", help="Detect the face anew in every frame (slower).")] = False,
    device: Annotated[DeviceName | None, typer.Option(help="Default: VISEME_DEVICE, else auto.")] = None,
    precision: Annotated[PrecisionName | None, typer.Option(help="Default: VISEME_PRECISION, else auto.")] = None,
) -> None:
    """Read the lips in videos and print what they say."""
    from inference.lip_reading import LipReader, ReadOptions
    from inference.settings import Settings

    check_output(videos, output, output_dir)
    settings = Settings.from_env()
    options = ReadOptions(face=parse_face(face), decoder=decoder.value, exact=exact)
    options = options if nbest is None else replace(options, n_best=nbest)
    reader = LipReader(
        weights=weights,
        device=device or settings.device,
        precision=precision or settings.precision,
        landmarks=landmarks,
        settings=settings,
    )

    def tell(transcript: Transcript, video: Path) -> None:
        tell_result(transcript, video, output, output_dir, is_one=len(videos) == 1)
        if burnt:
            burn_beside(video, transcript, output_dir, settings)

    if read_all(reader, videos, options, tell):
        raise typer.Exit(CALLERS)


def burn_beside(video: Path, transcript: Transcript, output_dir: Path | None, settings: Settings) -> None:
    """Write VIDEO.captioned.mp4 beside the video, or where the output goes."""
    from container.burn import burn

    path = (output_dir or video.parent) / f"{video.stem}.captioned.mp4"
    complain(f"wrote {burn(video, transcript, path, settings.media_limits)}")


def read_all(
    reader: LipReader, videos: list[Path], options: ReadOptions, on_read: Callable[[Transcript, Path], None]
) -> int:
    """Read each video; one that cannot be read is named on stderr. Returns how many those were."""
    for warning in reader.warnings:
        complain(f"warning: {warning}")
    n_failed = 0
    with show_progress() as progress:
        for video in videos:
            task = progress.add_task(escape(video.name), total=None)

            def tell(done_s: float, total_s: float | None, task: TaskID = task) -> None:
                progress.update(task, completed=done_s, total=total_s)

            try:
                transcript = reader.read(video, options, tell)
            except CallerError as err:
                n_failed += 1
                with lines_apart(progress, task):
                    complain(str(err))
                continue
            with lines_apart(progress, task):
                on_read(transcript, video)
    return n_failed


@contextmanager
def lines_apart(progress: Progress, task: TaskID) -> Iterator[None]:
    """Take the bar off the screen while lines are printed, which it would draw over."""
    progress.remove_task(task)
    progress.stop()
    yield
    progress.start()


def tell_result(transcript: Transcript, video: Path, form: Format, folder: Path | None, *, is_one: bool) -> None:
    """Print a transcript, or write its files and name them on stderr."""
    if folder is not None:
        for path in write_transcript(transcript, video, form, folder):
            complain(f"wrote {path}")
        return
    text = as_text(transcript, video, form).removesuffix("\n")
    if form is Format.txt and not is_one:
        name = str(video).replace("\n", "?")  # one line each, whatever the file is called
        text = f"{name}: {text}"
    say(text)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar for each video and its time left, on stderr where a person watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(
        *columns, console=console, disable=hidden, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        yield progress


def parse_face(text: str) -> FaceChoice:
    """'largest', or a number from 0 up."""
    if text == "largest":
        return "largest"
    if text.isdecimal():
        return int(text)
    raise InvalidRequest(f"--face {text!r}: expected 'largest' or a number from 0 up")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Default: VISEME_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: SAGEMAKER_BIND_TO_PORT, else 8080.")] = None,
    aws_routes: Annotated[
        bool, typer.Option("--aws-routes", help="Answer the AWS CLI and SDKs, too: /endpoints/NAME/invocations.")
    ] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Load the avatars at the start, and open the ports below.")
    ] = False,
    grpc_port: Annotated[
        int | None, typer.Option(help="Avatars over gRPC; 0 is off. Default: 50051 with --realtime.")
    ] = None,
    legacy_ports: Annotated[
        str | None,
        typer.Option(
            metavar="PORT,PORT,PORT",
            help="Avatars for older clients: JSON and binary, the same, the proxy; 0 is off. "
            "Default: 8084,8085,8086 with --realtime.",
        ),
    ] = None,
) -> None:
    """Serve reading and syncing over HTTP, and live avatars over WebSocket and gRPC."""
    from container.server import run_server
    from inference.settings import Settings

    settings = Settings.from_env().asked(
        host=host, port=port, realtime=realtime or None, grpc_port=grpc_port, legacy_ports=legacy_ports
    )
    raise typer.Exit(run_server(settings, with_aws_routes=aws_routes))


@weights_app.command("list")
def list_weights() -> None:
    """Print the weight sets known by name: job, state on this machine, source, licence, landmarks."""
    from inference.settings import Settings
    from inference.weights.registry import REGISTRY
    from inference.weights.cache import path_of

    cache = Settings.from_env().weights_cache
    for one in REGISTRY.values():
        here = all(path_of(one, file, cache).is_file() for file in one.files)
        state = "shipped" if one.shipped_in else "fetched" if here else "not fetched"
        typer.echo("\t".join([one.name, one.job, state, one.source, one.licence, one.landmarks or "-"]))


@weights_app.command("fetch")
def fetch_weights(name: Annotated[str, typer.Argument(help="A set from 'viseme weights list'.")]) -> None:
    """Bring a weight set into the cache, unless it is there already, and print its files; its licence on stderr."""
    from inference.settings import Settings
    from inference.weights.fetch import fetch
    from inference.weights.registry import find_set

    one = find_set(name)
    complain(f"{one.name}: licence: {one.licence}")
    if one.notice:
        complain(f"warning: {one.notice}")
    for path in fetch(name, Settings.from_env().weight_sources):
        typer.echo(str(path))


@weights_app.command("verify")
def verify_weights(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A set from 'viseme weights list', or a file.")],
) -> None:
    """Print the SHA-256 of each file of a set, checked against the registry, or of a file of weights."""
    from inference.settings import Settings
    from inference.weights.resolve import looks_like_path
    from inference.weights.registry import find_set
    from inference.weights.cache import check_hash, locate

    if looks_like_path(name) or Path(name).is_file():
        verify_file(Path(name))
        return
    one = find_set(name)
    for file in one.files:
        path = locate(one, file, Settings.from_env().weights_cache)
        typer.echo(f"{check_hash(path, file)}  {path}")


def verify_file(path: Path) -> None:
    """Whether a file is a whole network's weights; whose, and which set's where the registry knows the bytes."""
    from inference.conversion.architectures import load_module
    from inference.weights.resolve import OPENVINO_SUFFIX, from_path
    from inference.conversion.openvino_files import read_openvino

    found = from_path(path, str(path))
    if found.path.suffix == OPENVINO_SUFFIX:
        architecture = read_openvino(found.path, None).architecture
    else:
        architecture, _ = load_module(found.path)
    typer.echo(f"{found.sha256}  {found.path}")
    complain(f"{path.name}: a whole {architecture.name}")
    if found.weight_set:
        complain(f"{path.name}: these are the weights {found.weight_set.name!r}")


@weights_app.command("convert")
def convert_weights(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH", help="Weights of one of our networks: a set, a file, s3://, hf://"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")],
    form: Annotated[
        FormName, typer.Option("--to", help="safetensors: tensors alone. onnx, openvino: the network too.")
    ] = FormName.safetensors,
    precision: Annotated[
        StoredPrecision,
        typer.Option(help="Of the stored weights. bf16: safetensors only. int8: OpenVINO only; takes minutes."),
    ] = StoredPrecision.f32,
    films: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate", metavar="VIDEO", help="For int8 of Wav2Lip: a film of a talking face with sound. May repeat."
        ),
    ] = None,
) -> None:
    """Write weights in another form and print the files."""
    from container.samples import make_samples, make_speaking_samples
    from inference.settings import Settings
    from inference.conversion.architectures import LIP_COORD_NET
    from inference.conversion.convert import convert, find_convertible

    sources = Settings.from_env().weight_sources
    found = find_convertible(name, sources)
    if found.weight_set and found.weight_set.notice:
        complain(f"warning: {found.weight_set.notice}")

    def sample(architecture: Architecture) -> Iterable[Sample]:
        if architecture is LIP_COORD_NET:
            return make_samples(sources, found.landmarks)
        return make_speaking_samples(sources, films or ())

    for path in convert(found, form.value, precision.value, output, sample, complain):
        typer.echo(str(path))


def say(line: str) -> None:
    """One line of data. Raises: OutputGone where nobody reads them any more."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError as err:
        raise OutputGone from err


class OutputGone(Exception):
    """Whoever read our output has gone away, as `head` does; that is no fault."""


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo("viseme: " + " ".join(message.split()), err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every failure is one line on stderr."""
    try:
        code = app(arguments, standalone_mode=False)
    except (TyperException, CallerError, DeviceUnavailable) as err:
        message = err.format_message() if isinstance(err, TyperException) else str(err)
        if message:  # none where the help was printed for want of a command
            complain(message)
        return CALLERS
    except (VisemeError, OSError) as err:  # a full disk, a folder that cannot be written
        complain(str(err))
        return OURS
    except OutputGone:
        # Python flushes stdout at exit and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except Exception:
        logging.getLogger("viseme").exception("a fault of ours; please report it")
        return OURS
    return code if isinstance(code, int) else DONE


if __name__ == "__main__":
    sys.exit(main())
