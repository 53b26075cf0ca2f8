"""Transcripts as text: printed, or a file for each video and format."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest, StorageError

if TYPE_CHECKING:
    from inference.lip_reading import Transcript


class Format(StrEnum):
    """What `read` prints or writes."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    all = "all"


def forms_of(form: Format) -> tuple[Format, ...]:
    return tuple(one for one in Format if one is not Format.all) if form is Format.all else (form,)


def as_text(transcript: Transcript, video: Path, form: Format) -> str:
    """The transcript in one format, as a file holds it."""
    from inference.lip_reading.captions import to_captions

    match form:
        case Format.txt:
            return transcript.text + "\n"
        case Format.json:
            return json.dumps({"file": str(video)} | transcript.as_dict()) + "\n"
        case Format.srt:
            return to_captions(transcript.words, "srt")
        case Format.vtt:
            return to_captions(transcript.words, "vtt")
        case Format.tsv:
            return to_captions(transcript.words, "tsv")
        case _:
            raise ValueError(f"{form} is not one format")


def check_output(videos: Sequence[Path], form: Format, folder: Path | None) -> None:
    """Raises: InvalidRequest where two results would share a place, or there is none for them."""
    if folder is None:
        if form is Format.all or (len(videos) > 1 and form in (Format.srt, Format.vtt, Format.tsv)):
            raise InvalidRequest(f"--format {form}: several files; expected --output-dir DIR to put them in")
        return
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"--output-dir {folder}: is a file; expected a folder")
    by_name: dict[str, Path] = {}
    for video in videos:
        other = by_name.setdefault(video.stem, video)
        if other != video:
            raise InvalidRequest(f"{other} and {video} would be written to the same files; read them one by one")


def write_transcript(transcript: Transcript, video: Path, form: Format, folder: Path) -> list[Path]:
    """A file per format, named after the video; each appears whole or not at all. Raises: StorageError."""
    written = []
    for one in forms_of(form):
        path = folder / f"{video.stem}.{one}"
        write_whole(path, as_text(transcript, video, one))
        written.append(path)
    return written


def write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as err:
        raise StorageError(f"{path}: could not be written ({err.strerror or err})") from err
    finally:
        partial.unlink(missing_ok=True)
