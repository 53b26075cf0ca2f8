"""`viseme render`: videos of a synthetic speaker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from container.commands.console import print_note
from inference.errors import InvalidRequest

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.

SIZE_PATTERN = re.compile(r"(\d{1,5})x(\d{1,5})")
SPAN_PATTERN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


def render(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words of the GRID corpus: BIN BLUE AT F TWO NOW.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT.mp4", help="Video to write; its ground truth goes to OUT.json."),
    ],
    seed: Annotated[int, typer.Option(help="Seed of the person, the room and the light.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second, 5 to 120.")] = 25.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width and height in pixels, even numbers.")] = "360x288",
    length: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Default: 3, or longer if the text takes longer.")
    ] = None,
    people: Annotated[int, typer.Option(min=1, max=2, help="2: add a silent person beside the speaker.")] = 1,
    hide: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM-TO", help="Seconds in which the frame is empty. Repeatable."),
    ] = None,
    variable_rate: Annotated[
        bool, typer.Option("--variable-rate", help="Use a variable frame rate, as phones record.")
    ] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Write no audio.")] = False,
) -> None:
    """Render a synthetic speaker who says a text; write the video and its ground truth.

    The ground truth is a JSON file beside the video: words and phonemes with
    their times, and the landmarks and face boxes of each frame.
    """
    width, height = parse_pair(SIZE_PATTERN, size, "--size", "as 360x288")
    hidden_s = tuple(parse_pair(SPAN_PATTERN, span, "--hide", "as 1.2-1.6") for span in hide or ())

    from inference.speaker import SyntheticClip, SyntheticClipOptions

    options = SyntheticClipOptions(
        width=int(width),
        height=int(height),
        fps=fps,
        length_s=length,
        has_listener=people == 2,
        hidden_s=hidden_s,
        has_variable_rate=variable_rate,
    )
    truth = SyntheticClip(text, seed, options).write(output, with_audio=not silent)
    print_note(f"wrote {output} and {truth}")


def parse_pair(pattern: re.Pattern[str], text: str, option: str, example: str) -> tuple[float, float]:
    """Return the two numbers of an option's value. Raises: InvalidRequest if it does not match the pattern."""
    found = pattern.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{option} {text!r}: expected two numbers, {example}")
    return float(found[1]), float(found[2])
