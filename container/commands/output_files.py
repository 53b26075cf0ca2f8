"""Files that a command writes: never one of its inputs by mistake, and through symbolic links."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from inference.errors import InvalidRequest

MAX_NAME_BYTES = 255  # of a file's name, on Linux and macOS
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an input if the output is the same file.")]


def choose_target(output: Path, inputs: Iterable[Path], *, force: bool | None = None) -> Path:
    """Return the file to write: what `output` links to if it is a symbolic link, else `output` itself.

    force: the command's flag; None if it has none.
    Raises: InvalidRequest if it is one of the inputs, by whatever name, unless `force`.
    """
    for source in inputs:
        if not force and is_same_file(output, source):
            remedy = "" if force is None else ", or --force to overwrite it"
            raise InvalidRequest(f"{output}: is the input {source}; expected another file{remedy}")
    return Path(os.path.realpath(output)) if output.is_symlink() else output


def name_after(source: Path, suffix: str) -> str:
    """Return the name of a file made from another: its stem and a suffix.

    A stem that is too long for that is cut, and ends with a digest of the whole.
    """
    stem = os.fsencode(source.stem)
    room = MAX_NAME_BYTES - len(os.fsencode(suffix))
    if len(stem) <= room:
        return source.stem + suffix
    digest = "~" + hashlib.sha256(stem).hexdigest()[:8]
    return stem[: room - len(digest)].decode(errors="ignore") + digest + suffix


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to one file, by a symbolic or a hard link too; not if either does not exist."""
    try:
        return first.samefile(second)
    except OSError:
        return False
