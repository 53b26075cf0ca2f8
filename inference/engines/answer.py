"""A finished answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """The body of an answer and its media type.

    body: the bytes, or the file that contains them. owner: keeps that file as long as this object is referenced;
    None if there is no file, or the server deletes it.
    """

    body: bytes | Path
    content_type: str
    owner: object = field(default=None, repr=False, compare=False)

    def read(self) -> bytes:
        """Return the whole body."""
        return self.body if isinstance(self.body, bytes) else self.body.read_bytes()
