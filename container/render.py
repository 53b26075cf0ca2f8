"""`viseme render`: the synthetic speaker says a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from inference.errors import InvalidRequest

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
SPAN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


def render(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words of the GRID language: BIN BLUE AT F TWO NOW.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="The film; OUT.json lies beside.")],
    seed: Annotated[int, typer.Option(help="Another number is another person, room and light.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames a second, 5 to 120.")] = 25.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels, even numbers.")] = "360x288",
    length: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Default: 3, or as long as the text takes.")
    ] = None,
    people: Annotated[int, typer.Option(min=1, max=2, help="2: somebody sits beside the speaker and listens.")] = 1,
    hide: Annotated[
        list[str] | None, typer.Option(metavar="FROM-TO", help="Seconds without anybody in the picture; may repeat.")
    ] = None,
    variable_rate: Annotated[
        bool, typer.Option("--variable-rate", help="Frames at uneven times, as telephones film.")
    ] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Without sound.")] = False,
) -> None:
    """Film a synthetic speaker saying a text, and write what is said and seen when as JSON beside it."""
    from inference.speaker import Film, FilmOptions

    width, height = numbers(SIZE, size, "--size", "as 360x288")
    options = FilmOptions(
        width=int(width),
        height=int(height),
        fps=fps,
        length_s=length,
        has_listener=people == 2,
        hidden_s=tuple(numbers(SPAN, span, "--hide", "as 1.2-1.6") for span in hide or ()),
        is_uneven=variable_rate,
    )
    truth = Film(text, seed, options).write(output, with_sound=not silent)
    typer.echo(f"viseme: wrote {output} and {truth}", err=True)


def numbers(form: re.Pattern[str], text: str, option: str, example: str) -> tuple[float, float]:
    """The two numbers of an option. Raises: InvalidRequest."""
    found = form.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{option} {text!r}: expected two numbers, {example}")
    return float(found[1]), float(found[2])
