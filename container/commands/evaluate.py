"""`viseme eval`: evaluation of lip reading on clips with known transcripts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from container.commands.console import (
    EXIT_USAGE,
    DeviceOption,
    PrecisionOption,
    ThreadsOption,
    WeightsOption,
    pause_progress,
    print_error,
    print_line,
    print_note,
    report_progress,
)
from inference.errors import CallerError, InvalidRequest, MediaNotFound

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from inference.lip_reading import LipReader
    from inference.lip_reading.evaluation import DecoderScore, TranscribedClip
    from inference.lip_reading.options import Decoder

MAX_CONFUSIONS = 8  # pairs of letters that the report lists
REQUIRED_COLUMNS = {"file", "transcript"}


@dataclass(frozen=True)
class LabelledClip:
    """A row of the table: a video, and what is said in it, in capitals with single spaces."""

    file: str
    reference: str
    speaker: str


def evaluate(
    table: Annotated[
        Path,
        typer.Argument(metavar="CLIPS.csv", help="Table with the columns file, transcript and, optionally, speaker."),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures as JSON.")
    ] = None,
    plot: Annotated[
        Path | None,
        # The backslash: Rich takes [eval] for a style and would not print it.
        typer.Option(metavar="PNG", help=r"Also plot the figures; needs pip install 'viseme\[eval]'."),
    ] = None,
    weights: WeightsOption = "starter",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Evaluate lip reading on clips with known transcripts.

    Print, for each decoder, word and character error rates (WER, CER), the
    accuracy in each slot of a GRID sentence, the calibration of confidences,
    and which letters are confused.

    Videos are searched for beside the table, then in a folder named like it.
    Those that cannot be read are reported on stderr and left out; the exit
    code is then 2.
    """
    clips = read_table(table)
    if plot is not None:
        import_pyplot()  # fail before the clips are read, which takes minutes

    from inference.backends.threads import limit_threads
    from inference.lip_reading import LipReader
    from inference.lip_reading.evaluation import score_clips
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(threads=threads)
    limit_threads(settings.wanted_threads)
    reader = LipReader(
        weights=weights,
        device=device or settings.device,
        precision=precision or settings.precision,
        settings=settings,
    )
    for warning in reader.warnings:
        print_note(f"warning: {warning}")
    read, failed = read_clips(reader, clips, table)
    scores = {name: score_clips(results) for name, results in read.items() if results}
    n_read, device_used = len(clips) - len(failed), f"{reader.device.precision} on {reader.device.name}"
    heading = f"{n_read} clips, weights {reader.model.info.weights}, {device_used}"
    print_line("\n".join([heading, *(format_report(scores) if scores else ["nothing could be read"])]))
    if json_file is not None:
        write_json(json_file, reader, scores, failed)
    if plot is not None and scores:
        plot_scores(plot, heading, scores)
    if failed:
        print_error(f"{len(failed)} of {len(clips)} clips could not be read and are left out")
        raise typer.Exit(EXIT_USAGE)


def read_table(table: Path) -> list[LabelledClip]:
    """Read the table of clips. Raises: InvalidRequest if it is not a CSV file, or lacks columns, rows or words."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InvalidRequest(f"{table}: cannot be read as a CSV table ({err})") from err
    if not rows:
        raise InvalidRequest(f"{table}: no rows; expected a line of column names, then a line for each clip")
    missing = REQUIRED_COLUMNS - set(rows[0])
    if missing:
        columns = ", ".join(str(name) for name in rows[0])
        raise InvalidRequest(f"{table}: no column {' nor '.join(sorted(missing))}; found {columns}")
    return [parse_row(table, i, row) for i, row in enumerate(rows, start=2)]


def parse_row(table: Path, line: int, row: dict[str, str | None]) -> LabelledClip:
    """Raise InvalidRequest if the row names no file or no words."""
    reference = " ".join((row["transcript"] or "").upper().split())
    if not reference or not row["file"]:
        raise InvalidRequest(f"{table}, line {line}: expected a file and a transcript")
    return LabelledClip(row["file"], reference, row.get("speaker") or "")


def read_clips(
    reader: LipReader, clips: Sequence[LabelledClip], table: Path
) -> tuple[dict[Decoder, list[TranscribedClip]], list[dict[str, str]]]:
    """Read all clips with each decoder that suits the weights.

    Returns: the clips read, by decoder; file and reason of those that could not be read.
    """
    from inference.lip_reading.evaluation import TranscribedClip
    from inference.lip_reading.grammar_decoder import LANGUAGE

    # The grammar decoder is of use only for weights that were trained on its language.
    decoders: tuple[Decoder, ...] = ("greedy", "grammar") if reader.model.language == LANGUAGE else ("greedy",)
    read: dict[Decoder, list[TranscribedClip]] = {name: [] for name in decoders}
    failed = []
    with report_progress() as progress:
        task = progress.add_task(table.name, total=len(clips))
        for clip in clips:
            try:
                transcripts = reader.read_with_decoders(find_file(clip.file, table), decoders)
            except CallerError as err:
                with pause_progress(progress):
                    print_error(f"{clip.file}: {err}" if clip.file not in str(err) else str(err))
                failed.append({"file": clip.file, "reason": str(err)})
                continue
            finally:
                progress.advance(task)
            for name, transcript in transcripts.items():
                read[name].append(TranscribedClip(clip.reference, transcript.text, transcript.words, clip.speaker))
    return read, failed


def find_file(name: str, table: Path) -> Path:
    """Return the path of a clip. Raises: MediaNotFound if it is in neither of the two folders."""
    candidates = (table.parent / name, table.with_suffix("") / name)
    for path in candidates:
        if path.is_file():
            return path
    raise MediaNotFound(f"{name}: no such file in {candidates[0].parent} nor in {candidates[1].parent}")


def format_report(scores: dict[Decoder, DecoderScore]) -> Iterator[str]:
    """Yield the paragraphs and lines of the report for the terminal."""
    yield f"\n{'':10}{'WER':>8}{'CER':>8}{'whole sentences':>18}"
    for name, one in scores.items():
        yield f"{name:10}{one.wer:8.1%}{one.cer:8.1%}{one.n_sentences_right:11} of {one.n_clips}"
    first, *_ = scores.values()
    if first.slots:
        yield "\nright words by slot\n" + " " * 10 + "".join(f"{slot:>13}" for slot in first.slots)
        for name, one in scores.items():
            yield f"{name:10}" + "".join(f"{share:13.1%}" for share in one.slots.values())
    if first.speakers:
        yield "\nWER by speaker\n" + " " * 10 + "".join(f"{speaker or '-':>9}" for speaker in first.speakers)
        for name, one in scores.items():
            yield f"{name:10}" + "".join(f"{rate:9.1%}" for rate in one.speakers.values())
    yield f"\nconfidence{'words':>8}{'right':>9}{'calibration error':>20}{'area under ROC':>17}"
    for name, one in scores.items():
        reliability = one.reliability
        area = "-" if reliability.area_under_roc is None else f"{reliability.area_under_roc:.3f}"
        share = reliability.n_right / max(reliability.n_words, 1)
        yield f"{name:10}{reliability.n_words:8}{share:9.1%}{reliability.expected_error:20.3f}{area:>17}"
    for name, one in scores.items():
        wrong = [f"{a} as {b}" + (f" x{n}" if n > 1 else "") for a, b, n in one.letters if a != b]
        if wrong:
            more = f" and {len(wrong) - MAX_CONFUSIONS} more" if len(wrong) > MAX_CONFUSIONS else ""
            yield f"\nletters misread, {name}: {', '.join(wrong[:MAX_CONFUSIONS])}{more}"


def write_json(
    path: Path, reader: LipReader, scores: dict[Decoder, DecoderScore], failed: list[dict[str, str]]
) -> None:
    """Write every figure as JSON, with the model, the device and the clips left out."""
    info = reader.model.info
    result = {
        "model": {"name": info.name, "weights": info.weights, "sha256": info.sha256},
        "device": reader.device.name,
        "precision": reader.device.precision,
        "failed": failed,
        "decoders": {name: one.as_dict() for name, one in scores.items()},
    }
    path.write_text(json.dumps(result, indent=2, default=vars, allow_nan=False) + "\n", "utf-8")


def import_pyplot() -> Any:
    """Import matplotlib, which only --plot needs. Raises: InvalidRequest if it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError as err:
        raise InvalidRequest("--plot needs the package matplotlib: pip install 'viseme[eval]'") from err
    mpl.use("Agg")  # draws to files; needs no display
    from matplotlib import pyplot

    return pyplot


def plot_scores(path: Path, heading: str, scores: dict[Decoder, DecoderScore]) -> None:
    """Plot the accuracy per slot, the reliability of confidences, and the confused letters of the last decoder."""
    pyplot = import_pyplot()
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(16, 5), layout="constrained")
    figure.suptitle(heading)
    plot_slots(left, scores)
    plot_reliability(middle, scores)
    plot_letters(right, *list(scores.items())[-1])
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)


def plot_slots(axes: Any, scores: dict[Decoder, DecoderScore]) -> None:
    """Plot the share of correct words, in all and in each slot, as bars for each decoder."""
    width = 0.8 / len(scores)
    for i, (name, one) in enumerate(scores.items()):
        shares = {"all": 1 - one.wer} | one.slots
        positions = [position + i * width for position in range(len(shares))]
        heights = [100 * max(share, 0) for share in shares.values()]
        axes.bar(positions, heights, width, label=f"{name}, WER {one.wer:.1%}")
        ticks = [position + (len(scores) - 1) * width / 2 for position in range(len(shares))]
        axes.set_xticks(ticks, shares, rotation=30)
    axes.set(title="Correct words (all: 1 - WER)", ylabel="%", ylim=(0, 122), yticks=range(0, 101, 20))
    axes.legend(loc="upper left")


def plot_reliability(axes: Any, scores: dict[Decoder, DecoderScore]) -> None:
    """Plot the share of correct words over confidence; points on the diagonal are calibrated."""
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    for name, one in scores.items():
        filled = [each for each in one.bins if each.n_words]
        x, y = [each.confidence for each in filled], [each.right for each in filled]
        (line,) = axes.plot(x, y, label=f"{name}, error {one.reliability.expected_error:.3f}")
        axes.scatter(x, y, [10 + 2 * each.n_words for each in filled], color=line.get_color())
    axes.set(title="Calibration (point size: words)", xlabel="confidence", ylabel="share of correct words")
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(loc="upper left")


def plot_letters(axes: Any, decoder: Decoder, one: DecoderScore) -> None:
    """Plot the confusion matrix of the letter slot."""
    axes.set(title=f"Letters, {decoder}", xlabel="recognised", ylabel="spoken")
    if not one.letters:
        axes.text(0.5, 0.5, "no clip contains a GRID sentence", ha="center")
        return
    spoken = sorted({a for a, _, _ in one.letters})
    recognised = sorted({b for _, b, _ in one.letters} | set(spoken))
    counts = [[sum(n for a, b, n in one.letters if (a, b) == (row, column)) for column in recognised] for row in spoken]
    axes.imshow(counts, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(recognised)), recognised)
    axes.set_yticks(range(len(spoken)), spoken)
    darkest = max(max(row) for row in counts)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                axes.text(x, y, count, ha="center", va="center", color="white" if count > darkest / 2 else "black")
