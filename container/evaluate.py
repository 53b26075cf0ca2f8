"""`viseme eval`: how well clips with known words are read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference.errors import CallerError, InvalidRequest, MediaNotFound

if TYPE_CHECKING:
    from inference.lip_reading import LipReader
    from inference.lip_reading.evaluation import ReadClip, Score
    from inference.lip_reading.options import Decoder

CALLERS = 2  # exit code
MAX_CONFUSIONS = 8  # of letters that the table names
REQUIRED = {"file", "transcript"}


@dataclass(frozen=True)
class Row:
    """A clip to read, and what is said in it: capitals, single spaces."""

    file: str
    said: str
    speaker: str


def evaluate(
    table: Annotated[
        Path, typer.Argument(metavar="CLIPS.csv", help="Columns file, transcript and, optionally, speaker.")
    ],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Every figure as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="A picture of them; needs pip install 'viseme[eval]'.")
    ] = None,
    weights: Annotated[str, typer.Option(metavar="NAME|PATH", help="As of 'viseme read'.")] = "starter",
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VISEME_DEVICE, else auto.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto, f32, f16, bf16 or int8; default: VISEME_PRECISION, else auto."),
    ] = None,
) -> None:
    """Read clips whose words are known; print error rates, right words by slot, and what confidences are worth.

    Files are looked for beside the table, and in a folder named like it. Clips that cannot be read are named and
    left out.
    """
    from inference.lip_reading import LipReader
    from inference.lip_reading.evaluation import score
    from inference.settings import Settings

    rows = read_rows(table)
    if plot is not None:
        import_matplotlib()  # before minutes are spent
    settings = Settings.from_env()
    reader = LipReader(
        weights=weights,
        device=device or settings.device,
        precision=precision or settings.precision,
        settings=settings,
    )
    for warning in reader.warnings:
        complain(f"warning: {warning}")
    read, failed = read_clips(reader, rows, table)
    scores = {name: score(clips) for name, clips in read.items() if clips}
    heading = f"{len(rows) - len(failed)} clips, weights {reader.model.info.weights}, {describe(reader)}"
    typer.echo("\n".join([heading, *(lines_of(scores) if scores else ["nothing could be read"])]))
    if json_file is not None:
        write_json(json_file, reader, scores, failed)
    if plot is not None and scores:
        draw(plot, heading, scores)
    if failed:
        complain(f"{len(failed)} of {len(rows)} clips could not be read and are left out")
        raise typer.Exit(CALLERS)


def describe(reader: LipReader) -> str:
    return f"{reader.device.precision} on {reader.device.name}"


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo("viseme: " + " ".join(message.split()), err=True)


def read_rows(table: Path) -> list[Row]:
    """Raises: InvalidRequest where the table is none, or lacks columns or words."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            found = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InvalidRequest(f"{table}: not a table that can be read ({err})") from err
    if not found:
        raise InvalidRequest(f"{table}: no rows; expected a line of column names, then a line for each clip")
    missing = REQUIRED - set(found[0])
    if missing:
        columns = ", ".join(str(name) for name in found[0])
        raise InvalidRequest(f"{table}: no column {' nor '.join(sorted(missing))}; found {columns}")
    return [to_row(table, i, one) for i, one in enumerate(found, start=2)]


def to_row(table: Path, line: int, found: dict[str, str | None]) -> Row:
    said = " ".join((found["transcript"] or "").upper().split())
    if not said or not found["file"]:
        raise InvalidRequest(f"{table}, line {line}: expected a file and a transcript")
    return Row(found["file"], said, found.get("speaker") or "")


def read_clips(
    reader: LipReader, rows: Sequence[Row], table: Path
) -> tuple[dict[Decoder, list[ReadClip]], list[dict[str, str]]]:
    """What each decoder read of each clip, and which clips could not be read, and why."""
    from inference.lip_reading.evaluation import ReadClip

    decoders = decoders_of(reader)
    read: dict[Decoder, list[ReadClip]] = {name: [] for name in decoders}
    failed = []
    for i, row in enumerate(rows, start=1):
        tell(f"{i} of {len(rows)}")
        try:
            found = reader.read_by_each(locate(row.file, table), decoders)
        except CallerError as err:
            tell("")
            complain(f"{row.file}: {err}" if row.file not in str(err) else str(err))
            failed.append({"file": row.file, "reason": str(err)})
            continue
        for name, transcript in found.items():
            read[name].append(ReadClip(row.said, transcript.text, transcript.words, row.speaker))
    tell("")
    return read, failed


def decoders_of(reader: LipReader) -> tuple[Decoder, ...]:
    """Greedy, and the grammar where the weights speak its language."""
    from inference.lip_reading.grammar import LANGUAGE

    return ("greedy", "grammar") if reader.model.language == LANGUAGE else ("greedy",)


def locate(file: str, table: Path) -> Path:
    """Raises: MediaNotFound."""
    places = (table.parent / file, table.with_suffix("") / file)
    for path in places:
        if path.is_file():
            return path
    raise MediaNotFound(f"{file}: no such file in {places[0].parent} nor in {places[1].parent}")


def tell(text: str) -> None:
    """How far it is, where a person watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def lines_of(scores: dict[Decoder, Score]) -> Iterator[str]:
    """The table for the terminal."""
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
        worth = one.reliability
        area = "-" if worth.area_under_roc is None else f"{worth.area_under_roc:.3f}"
        share = worth.n_right / max(worth.n_words, 1)
        yield f"{name:10}{worth.n_words:8}{share:9.1%}{worth.expected_error:20.3f}{area:>17}"
    for name, one in scores.items():
        wrong = [f"{a} as {b}" + (f" x{n}" if n > 1 else "") for a, b, n in one.letters if a != b]
        if wrong:
            more = f" and {len(wrong) - MAX_CONFUSIONS} more" if len(wrong) > MAX_CONFUSIONS else ""
            yield f"\nletters misread, {name}: {', '.join(wrong[:MAX_CONFUSIONS])}{more}"


def write_json(path: Path, reader: LipReader, scores: dict[Decoder, Score], failed: list[dict[str, str]]) -> None:
    info = reader.model.info
    result = {
        "model": {"name": info.name, "weights": info.weights, "sha256": info.sha256},
        "device": reader.device.name,
        "precision": reader.device.precision,
        "failed": failed,
        "decoders": {name: one.as_dict() for name, one in scores.items()},
    }
    path.write_text(json.dumps(result, indent=2, default=vars, allow_nan=False) + "\n", "utf-8")


def import_matplotlib() -> Any:
    """Raises: InvalidRequest where it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError as err:
        raise InvalidRequest("--plot needs the package matplotlib: pip install 'viseme[eval]'") from err
    mpl.use("Agg")  # no screen is needed
    return mpl


def draw(path: Path, heading: str, scores: dict[Decoder, Score]) -> None:
    """Right words by slot, what confidences are worth, and which letters are read as which."""
    import_matplotlib()
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    figure.suptitle(heading)
    draw_slots(left, scores)
    draw_reliability(middle, scores)
    draw_letters(right, list(scores.items())[-1])
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def draw_slots(axes: Any, scores: dict[Decoder, Score]) -> None:
    width = 0.8 / len(scores)
    for i, (name, one) in enumerate(scores.items()):
        shares = {"all": 1 - one.wer} | one.slots
        places = [place + i * width for place in range(len(shares))]
        axes.bar(places, [100 * max(share, 0) for share in shares.values()], width, label=f"{name}, WER {one.wer:.1%}")
        axes.set_xticks([place + (len(scores) - 1) * width / 2 for place in range(len(shares))], shares, rotation=30)
    axes.set(title="Right words (all: 1 - WER)", ylabel="%", ylim=(0, 122), yticks=range(0, 101, 20))
    axes.legend(loc="upper left")


def draw_reliability(axes: Any, scores: dict[Decoder, Score]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    for name, one in scores.items():
        filled = [each for each in one.bins if each.n_words]
        x, y = [each.confidence for each in filled], [each.right for each in filled]
        (line,) = axes.plot(x, y, label=f"{name}, error {one.reliability.expected_error:.3f}")
        axes.scatter(x, y, [10 + 2 * each.n_words for each in filled], color=line.get_color())
    axes.set(title="Are confidences right? (size: words)", xlabel="confidence", ylabel="share of right words")
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(loc="upper left")


def draw_letters(axes: Any, named: tuple[str, Score]) -> None:
    name, one = named
    axes.set(title=f"Letters, {name}", xlabel="read", ylabel="said")
    if not one.letters:
        axes.text(0.5, 0.5, "no clip says a GRID sentence", ha="center")
        return
    said = sorted({a for a, _, _ in one.letters})
    read = sorted({b for _, b, _ in one.letters} | set(said))
    counts = [[sum(n for a, b, n in one.letters if (a, b) == (row, column)) for column in read] for row in said]
    axes.imshow(counts, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(read)), read)
    axes.set_yticks(range(len(said)), said)
    darkest = max(max(row) for row in counts)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                axes.text(x, y, count, ha="center", va="center", color="white" if count > darkest / 2 else "black")
