"""Tables of clips with their transcripts, and the word error rate on them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.lip_reading.evaluation import error_rate


@dataclass(frozen=True)
class LabelledClip:
    """A video, its speaker, and the sentence that is spoken in it."""

    path: Path
    speaker: str
    transcript: str


def read_clip_table(table: Path) -> list[LabelledClip]:
    """Read a CSV with the columns file, speaker, transcript.

    The videos are in a folder named like the table, or beside the table. Raises: SystemExit if one is missing.
    """
    folders = (table.with_suffix(""), table.parent)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [LabelledClip(find_video(row["file"], folders), row.get("speaker", ""), row["transcript"]) for row in rows]


def find_video(name: str, folders: tuple[Path, ...]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(f"{name}: found neither in {' nor in '.join(map(str, folders))}")


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the word error rate over all texts together."""
    return error_rate([(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True)])
