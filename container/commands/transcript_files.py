"""Transcripts as text: for stdout, or as one file per video and format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from container.commands.output_files import choose_target, name_after
from inference.atomic_write import atomic_file
from inference.errors import InvalidRequest, StorageError

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from inference.lip_reading import Transcript


class TranscriptFormat(StrEnum):
    """Formats that `read` prints or writes."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    all = "all"


def format_transcript(transcript: Transcript, video: Path, output_format: TranscriptFormat) -> str:
    """Return the transcript in one format, as its file contains it."""
    from inference.lip_reading.captions import format_captions

    match output_format:
        case TranscriptFormat.txt:
            return transcript.text + "\n"
        case TranscriptFormat.json:
            return json.dumps({"file": str(video)} | transcript.as_dict()) + "\n"
        case TranscriptFormat.srt:
            return format_captions(transcript.words, "srt")
        case TranscriptFormat.vtt:
            return format_captions(transcript.words, "vtt")
        case TranscriptFormat.tsv:
            return format_captions(transcript.words, "tsv")
        case _:
            raise ValueError(f"{output_format}: expected a single format")


def check_output_options(videos: Sequence[Path], output_format: TranscriptFormat, folder: Path | None) -> None:
    """Raise InvalidRequest if results need a folder and have none, or would be written to the same file."""
    if folder is None:
        captions = TranscriptFormat.srt, TranscriptFormat.vtt, TranscriptFormat.tsv
        if output_format is TranscriptFormat.all or (len(videos) > 1 and output_format in captions):
            raise InvalidRequest(f"--format {output_format}: several files; expected --output-dir DIR to put them in")
        return
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"--output-dir {folder}: is a file; expected a folder")
    by_name: dict[str, Path] = {}
    for video in videos:
        other = by_name.setdefault(video.stem, video)
        if other != video:
            raise InvalidRequest(f"{other} and {video} would be written to the same files; read them one by one")


def write_transcript(transcript: Transcript, video: Path, output_format: TranscriptFormat, folder: Path) -> list[Path]:
    """Write one file per format, named after the video, each atomically, and return their paths.

    Raises: StorageError if a file cannot be written.
    """
    is_all = output_format is TranscriptFormat.all
    formats = [one for one in TranscriptFormat if one is not TranscriptFormat.all] if is_all else [output_format]
    written = []
    for one in formats:
        path = choose_target(folder / name_after(video, f".{one}"), (video,))
        text = format_transcript(transcript, video, one)
        try:
            with atomic_file(path, make_parents=True) as part:
                part.write_text(text)
        except OSError as err:
            raise StorageError(f"{path}: could not be written ({err.strerror or err})") from err
        written.append(path)
    return written
