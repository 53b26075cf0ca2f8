"""Untrusted files as bytes: of limited size, without tags, and without names that mislead FFmpeg."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from inference.errors import MediaNotFound, MediaTooLarge, UnsupportedMedia
from inference.media.file_kinds import is_image
from inference.media.limits import MediaLimits

Source = str | Path | bytes
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
ID3_HEADER_BYTES = 10
MAX_TAGS = 16  # skipped at the start


@contextmanager
def open_bytes(source: Source, limits: MediaLimits) -> Iterator[tuple[IO[bytes], str]]:
    """Yield the source as a seekable binary file of limited size, and its name for messages."""
    if isinstance(source, bytes):
        check_size(len(source), "input", limits)
        yield io.BytesIO(source), "input"
        return
    path = Path(source)
    name = path.name or str(path)
    try:
        status = path.stat()
    except OSError as err:
        raise MediaNotFound(f"{name}: {err.strerror or err}") from err
    except ValueError as err:  # a NUL in the path
        raise MediaNotFound(f"{name!r}: {err}") from err
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise MediaNotFound(f"{name}: is {kind}; expected a video file")
    check_size(status.st_size, name, limits)
    try:
        file = path.open("rb")
    except OSError as err:
        raise MediaNotFound(f"{name}: {err.strerror or err}") from err
    with file:
        yield file, name


def check_size(n_bytes: int, name: str, limits: MediaLimits) -> None:
    if n_bytes == 0:
        raise UnsupportedMedia(f"{name}: is empty (0 bytes); expected a video")
    if n_bytes > limits.max_bytes:
        raise MediaTooLarge(f"{name}: {n_bytes} bytes; at most {limits.max_bytes} expected")


def size_of(file: IO[bytes]) -> int:
    """Return the size of a seekable file in bytes, and leave its position."""
    position = file.tell()
    n_bytes = file.seek(0, io.SEEK_END)
    file.seek(position)
    return n_bytes


class UnnamedFile:
    """A file object without its name."""

    def __init__(self, file: IO[bytes] | OffsetFile) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def without_image_name(file: IO[bytes] | OffsetFile) -> IO[bytes] | OffsetFile | UnnamedFile:
    """Hide the name of an image: by it FFmpeg picks `image2`, which reads numbered files and is not allowed here.

    An image may have any suffix, and other files may have that of an image. Only raw audio and video need theirs.
    """
    name = getattr(file, "name", None)
    is_named_image = isinstance(name, str) and Path(name).suffix.lower() in IMAGE_SUFFIXES
    return UnnamedFile(file) if is_named_image or is_image(file) else file


class OffsetFile:
    """A file object that starts at an offset of another."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self.name = getattr(file, "name", None)
        self.read = file.read
        self._file = file
        self._offset = offset
        self.seek(0)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        if whence == io.SEEK_SET:
            position += self._offset
        return self._file.seek(position, whence) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset


def without_tags(file: IO[bytes]) -> IO[bytes] | OffsetFile:
    """Skip the ID3 tags at the start: nothing here uses them, and FFmpeg unpacks all that they contain."""
    n_bytes, offset = size_of(file), 0
    for _ in range(MAX_TAGS):
        file.seek(offset)
        head = file.read(ID3_HEADER_BYTES)
        end = offset + ID3_HEADER_BYTES + id3_size(head) if head[:3] == b"ID3" else offset
        if end == offset or end >= n_bytes:
            break
        offset = end
    file.seek(0)
    return OffsetFile(file, offset) if offset else file


def id3_size(head: bytes) -> int:
    """Return the size of a tag after its header: four times 7 bits, and a footer if bit 4 of the flags is set."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (ID3_HEADER_BYTES if len(head) > 5 and head[5] & 0x10 else 0)
