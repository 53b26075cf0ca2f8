"""Large JSON without its long strings, which are media in base64: enough to check a request before it is queued."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_STRING_BYTES = 4096  # of a string that is kept
PLACEHOLDER = b"AAAA"  # base64 of some bytes
MAX_STRINGS = 4000  # no valid request has more
CHUNK_BYTES = 1 << 18  # searching one keeps other threads waiting
STRING = re.compile(rb'(?s)[^"\\]*+(?:\\.[^"\\]*+)*+')  # the rest of a string, up to its end or that of the chunk


def read_shortened(path: Path, max_bytes: int) -> bytes | None:
    """Return the JSON of a file with `PLACEHOLDER` in the place of each long string.

    None if it has over `max_bytes` even so, too many strings, or two or four bytes for each character. Invalid JSON
    stays invalid.
    """
    kept, n_strings = bytearray(), 0
    start: int | None = None  # of the string in `kept` that has not ended
    with path.open("rb") as file:
        if 0 in file.read(4):
            return None
        file.seek(0)
        for chunk in whole_escapes(file):
            at = 0
            while at < len(chunk):
                if start is None:
                    at, first = end_of_structure(chunk, at), at
                    kept += chunk[first:at]
                    start = len(kept) if kept[-1:] == b'"' and at > first else None
                else:
                    at, first = end_of_string(chunk, at), at
                    n_wanted = MAX_STRING_BYTES + 1 - (len(kept) - start)
                    kept += chunk[first : min(at, first + n_wanted)]
                    if at < len(chunk):
                        if len(kept) - start > MAX_STRING_BYTES:
                            kept[start:] = PLACEHOLDER
                        kept += b'"'
                        start, at, n_strings = None, at + 1, n_strings + 1
                if len(kept) > max_bytes + MAX_STRING_BYTES or n_strings > MAX_STRINGS:
                    return None
    return bytes(kept) if len(kept) <= max_bytes else None


def whole_escapes(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file in chunks, none of which ends within an escape."""
    while chunk := file.read(CHUNK_BYTES):
        n_backslashes = len(chunk) - len(chunk.rstrip(b"\\"))
        yield chunk + file.read(1) if n_backslashes % 2 else chunk


def end_of_structure(chunk: bytes, at: int) -> int:
    """Return where the next string begins, after its quote, or the end of the chunk."""
    quote = chunk.find(b'"', at)
    return len(chunk) if quote < 0 else quote + 1


def end_of_string(chunk: bytes, at: int) -> int:
    """Return where the quote is that ends a string, or the end of the chunk."""
    quote = chunk.find(b'"', at)
    end = len(chunk) if quote < 0 else quote
    if chunk.find(b"\\", at, end) < 0:  # as in base64, which is searched ten times as fast as a pattern
        return end
    match = STRING.match(chunk, at)
    assert match is not None  # it may be empty
    return match.end() if chunk[match.end() : match.end() + 1] == b'"' else len(chunk)
