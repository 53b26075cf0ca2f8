"""Lists of clips with their transcripts."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SpokenClip:
    """A clip, who speaks in it, and what they say."""

    path: Path
    speaker: str
    transcript: str


def read_list(table: Path) -> list[SpokenClip]:
    """Rows of a CSV with the columns file, speaker, transcript.

    The files lie in a folder named like the table, or beside it.
    """
    folders = (table.with_suffix(""), table.parent)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [SpokenClip(find(row["file"], folders), row.get("speaker", ""), row["transcript"]) for row in rows]


def find(name: str, folders: tuple[Path, ...]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(f"{name}: not in {' nor '.join(map(str, folders))}")
