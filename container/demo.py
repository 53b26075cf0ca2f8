"""`make demo`: read one clip and show its words over time."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference.errors import CallerError
from inference.lip_reading import LipReader, Transcript, Word
from inference.weights.registry import STARTER

BAR_WIDTH = 40  # characters, for the whole clip: the table fits in 80


def main(arguments: list[str]) -> int:
    """Read the clip named first; 2 where there is none or it cannot be read."""
    if not arguments:
        print("viseme: no clip at hand; try: make demo VIDEO=path/to/a/talking/face.mp4", file=sys.stderr)  # noqa: T201
        return 2
    video = Path(arguments[0])
    try:
        transcript = LipReader().read(video)
    except CallerError as err:
        print(f"viseme: {err}", file=sys.stderr)  # noqa: T201
        return 2
    show(transcript, video, Console())
    return 0


def show(transcript: Transcript, video: Path, console: Console) -> None:
    """The sentence, its words over time, and how far to trust them."""
    console.print(f"\n{video.name}: {transcript.duration_s:.2f} s, read without its sound")
    console.print(Text(transcript.text or "(nothing was read)", style="bold"), "\n")
    table = Table("word", "start s", "end s", "confidence", "over time", box=None, pad_edge=False)
    for word in transcript.words:
        table.add_row(
            word.word,
            f"{word.start:.2f}",
            f"{word.end:.2f}",
            f"{word.confidence:.2f}",
            bar(word, transcript.duration_s),
        )
    console.print(table)
    card = STARTER.read_card()["results"]["eval s1"]
    console.print(
        f"\nThese are the starter weights, trained on one man's face: on {card['clips']} clips of him that they "
        f"never saw, {card['greedy_wer']:.1%} of the words are wrong; on other people, most.\n"
        f"Frames without a face: {transcript.frames_without_face} of {transcript.num_frames}. "
        f"Time: {transcript.timings_ms['total'] / 1000:.1f} s."
    )


def bar(word: Word, duration_s: float) -> str:
    """Where a word lies in the clip."""
    if word.start is None or word.end is None:
        return ""
    first, last = (round(t / duration_s * BAR_WIDTH) for t in (word.start, word.end))
    return "·" * first + "█" * max(last - first, 1) + "·" * (BAR_WIDTH - max(last, first + 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
