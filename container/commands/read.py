"""`viseme read`: lip reading of video files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.console import (
    EXIT_USAGE,
    DeviceOption,
    FaceOption,
    PrecisionOption,
    ThreadsOption,
    WeightsOption,
    make_progress_callback,
    parse_face,
    pause_progress,
    print_error,
    print_line,
    print_note,
    report_progress,
    without_collections,
)
from container.commands.output_files import choose_target, name_after
from container.commands.transcript_files import (
    TranscriptFormat,
    check_output_options,
    format_transcript,
    write_transcript,
)
from inference.errors import CallerError, InvalidRequest

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from inference.lip_reading import LipReader, ReadOptions, Transcript


MAX_PHRASES_BYTES = 1 << 20


class DecoderName(StrEnum):
    """Decoders that turn logits into text."""

    auto = "auto"
    greedy = "greedy"
    grammar = "grammar"


class LandmarksName(StrEnum):
    """Face landmark detectors."""

    mediapipe = "mediapipe"
    dlib = "dlib"


VideosArgument = Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Videos of a talking face.")]
FormatOption = Annotated[
    TranscriptFormat,
    typer.Option(
        "--format",
        help="txt: the text. json: one object per line, with word times. srt, vtt, tsv: captions. all: one file "
        "of each.",
    ),
]
OutputDirOption = Annotated[
    Path | None,
    typer.Option(
        "--output-dir", metavar="DIR", help="Write VIDEO.txt, VIDEO.srt, ... to this folder instead of stdout."
    ),
]
BurnOption = Annotated[
    bool, typer.Option("--burn", help="Also write VIDEO.captioned.mp4, with the captions drawn into its frames.")
]
DecoderOption = Annotated[
    DecoderName,
    typer.Option(
        "--decoder",
        help="greedy: unconstrained CTC. grammar: sentences of the GRID corpus only. auto: grammar if the weights "
        "were trained on GRID, else greedy.",
    ),
]
NBestOption = Annotated[
    int | None,
    typer.Option(
        "--nbest", metavar="N", help="Number of sentences the grammar decoder lists in the JSON's 'alternatives'."
    ),
]
PhrasesOption = Annotated[
    Path | None,
    typer.Option(
        "--phrases",
        metavar="FILE",
        help="Choose among the phrases in this text file, one a line: each is scored exactly, with any weights. The "
        "confidence is its posterior among them; 'alternatives' lists the best.",
    ),
]
LandmarksOption = Annotated[
    LandmarksName | None,
    typer.Option("--landmarks", help="Face landmark detector. Default: the one the weights were trained with."),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Detect the face in every frame instead of tracking it (slower).")
]


def read(
    videos: VideosArgument,
    output_format: FormatOption = TranscriptFormat.txt,
    output_dir: OutputDirOption = None,
    burn: BurnOption = False,
    weights: WeightsOption = "starter",
    decoder: DecoderOption = DecoderName.auto,
    nbest: NBestOption = None,
    phrases: PhrasesOption = None,
    landmarks: LandmarksOption = None,
    face: FaceOption = "largest",
    exact: ExactOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Read the lips in videos and print the text.

    With --output-dir, write one file per video and format instead.
    Videos that cannot be read are reported on stderr; the others are still
    read, and the exit code is 2.
    """
    check_output_options(videos, output_format, output_dir)
    captioned = {video: choose_target(captioned_path(video, output_dir), videos) for video in videos} if burn else {}
    chosen_face = parse_face(face)
    listed = () if phrases is None else read_phrases(phrases)

    with without_collections():
        # Read when numpy is loaded: its products are small here, and a second thread would mostly spin.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        from inference.backends.threads import limit_threads
        from inference.lip_reading import LipReader, ReadOptions
        from inference.malloc_trim import keep_freed_memory
        from inference.settings import Settings

        keep_freed_memory()
        settings = Settings.from_env().with_overrides(threads=threads)
        limit_threads(settings.wanted_threads)
        options = ReadOptions(face=chosen_face, decoder=decoder.value, exact=exact, phrases=listed)
        options = options if nbest is None else replace(options, n_best=nbest)
        reader = LipReader(
            weights=weights,
            device=device or settings.device,
            precision=precision or settings.precision,
            landmarks=landmarks,
            settings=settings,
        )

    def output_transcript(transcript: Transcript, video: Path) -> None:
        if output_dir is None:
            print_transcript(transcript, video, output_format, with_name=len(videos) > 1)
        else:
            for path in write_transcript(transcript, video, output_format, output_dir):
                print_note(f"wrote {path}")
        if burn:
            from container.visuals.burn_captions import burn_captions

            path = burn_captions(
                video, transcript, captioned[video], settings.media_limits, lambda text: print_note(f"warning: {text}")
            )
            print_note(f"wrote {path}")

    if read_videos(reader, videos, options, output_transcript):
        raise typer.Exit(EXIT_USAGE)


def captioned_path(video: Path, folder: Path | None) -> Path:
    """Return the path of the captioned copy. folder: for all copies; None for that of the video."""
    return (folder or video.parent) / name_after(video, ".captioned.mp4")


def read_videos(
    reader: LipReader, videos: list[Path], options: ReadOptions, on_read: Callable[[Transcript, Path], None]
) -> int:
    """Read each video, report on stderr those that cannot be read, and return how many these are."""
    for warning in reader.warnings:
        print_note(f"warning: {warning}")
    n_failed = 0
    with report_progress() as progress:
        for video in videos:
            task = progress.add_task(video.name, total=None)
            try:
                transcript = reader.read(video, options, make_progress_callback(progress, task))
            except CallerError as err:
                n_failed += 1
                with pause_progress(progress, finished=task):
                    print_error(str(err))
                continue
            with pause_progress(progress, finished=task):
                for warning in transcript.warnings[len(reader.warnings) :]:
                    print_note(f"warning: {video.name}: {warning}")
                on_read(transcript, video)
    return n_failed


def print_transcript(transcript: Transcript, video: Path, output_format: TranscriptFormat, *, with_name: bool) -> None:
    """Print a transcript on stdout; as plain text, after the name of its video if there are several."""
    text = format_transcript(transcript, video, output_format).removesuffix("\n")
    if output_format is TranscriptFormat.txt and with_name:
        name = str(video).replace("\n", "?")  # keeps each transcript on one line
        text = f"{name}: {text}"
    print_line(text)


def read_phrases(path: Path) -> tuple[str, ...]:
    """Read a file of phrases, one a line; blank lines do not count.

    Raises: InvalidRequest if it cannot be read, is no text or has no phrase.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PHRASES_BYTES + 1)
    except OSError as err:
        raise InvalidRequest(f"--phrases {path}: {err.strerror}") from err
    if len(content) > MAX_PHRASES_BYTES:  # before it is decoded, as the last character may be cut
        raise InvalidRequest(f"--phrases {path}: more than {MAX_PHRASES_BYTES >> 20} MiB; expected a phrase a line")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise InvalidRequest(f"--phrases {path}: expected text in UTF-8") from err
    found = tuple(line for line in lines if line.strip())
    if not found:
        raise InvalidRequest(f"--phrases {path}: no phrase; expected a phrase a line")
    return found
