"""The index of HEIF images (HEIC, AVIF), as far as FFmpeg and PyAV do not offer it: grids of tiles, and alpha.

Source: ISO/IEC 23008-12. Phones write a photo as a grid: its tiles are images of 512 x 512 pixels, which FFmpeg shows
as a stream each, with the item's number as the stream's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from inference.media.orientation import UPRIGHT, Orientation

MAX_META_BYTES = 1 << 20  # of the index; that of a phone's photo has 5 KB, that of MAX_TILES 60 KB
MAX_TOP_BOXES = 64  # before the index
MAX_TILES = 1024
CODED_KINDS = ("hvc1", "hev1", "av01", "avc1", "jpeg")
ALPHA_TYPES = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
FULL_BOXES = (b"pitm", b"iinf", b"iref", b"iloc")
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"avif", b"avis", b"mif1", b"msf1")


@dataclass(frozen=True)
class HeifImage:
    """One image of a file.

    kind: the type of its item, such as "hvc1" or "grid". tiles: the items of a grid, row by row; else the image itself.
    width, height: of a grid, before it is turned; 0 of another image. alpha: the image of its alpha plane, or None.
    """

    kind: str
    tiles: tuple[int, ...]
    columns: int = 1
    rows: int = 1
    width: int = 0
    height: int = 0
    orientation: Orientation = UPRIGHT
    alpha: HeifImage | None = None

    @property
    def is_whole(self) -> bool:
        """Whether one stream shows it, as FFmpeg and this package decode it."""
        return self.kind in CODED_KINDS and self.alpha is None

    @property
    def items(self) -> tuple[int, ...]:
        """All items to decode."""
        return self.tiles if self.alpha is None else (*self.tiles, *self.alpha.tiles)


@dataclass
class HeifIndex:
    """What the `meta` box says of the items: types, references, properties and places."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associations: dict[int, tuple[int, ...]] = field(default_factory=dict)  # to indices of properties
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # construction, offset, length
    idat: bytes = b""

    def properties_of(self, item: int) -> list[tuple[bytes, bytes]]:
        """Return the properties of an item in their order: type and content."""
        indices = self.associations.get(item, ())
        return [self.properties[index - 1] for index in indices if 1 <= index <= len(self.properties)]

    def references_from(self, kind: bytes, item: int) -> tuple[int, ...]:
        return next((to for found, source, to in self.references if (found, source) == (kind, item)), ())


class BoxReader:
    """Reads big-endian numbers from the content of a box. Raises: EOFError beyond its end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @classmethod
    def of_full_box(cls, content: bytes) -> tuple[int, int, BoxReader]:
        """Return the version and the flags that a full box starts with, and a reader of the rest."""
        reader = cls(content)
        return reader.number(1), reader.number(3), reader

    def number(self, n_bytes: int) -> int:
        return int.from_bytes(self.read(n_bytes), "big")

    def read(self, n_bytes: int) -> bytes:
        found = self._content[self._at : self._at + n_bytes]
        if len(found) < n_bytes:
            raise EOFError
        self._at += n_bytes
        return found

    def skip(self, n_bytes: int) -> None:
        self._at += n_bytes
        if self._at > len(self._content):
            raise EOFError

    def rest(self) -> bytes:
        return self._content[self._at :]


def read_heif(file: IO[bytes]) -> HeifImage | None:
    """Return the primary image of a HEIF file; None if it is another kind of file, or its index is damaged.

    Leaves the position of the file.
    """
    position = file.tell()
    try:
        meta = find_meta(file)
        index = None if meta is None else read_index(meta)
        return None if index is None else describe_primary(file, index)
    except (EOFError, ValueError):
        return None
    finally:
        file.seek(position)


def find_meta(file: IO[bytes]) -> bytes | None:
    """Return the content of the top-level `meta` box of a HEIF file."""
    n_bytes, at = file.seek(0, io.SEEK_END), 0
    for number in range(MAX_TOP_BOXES):
        file.seek(at)
        reader = BoxReader(file.read(16))
        size, kind = reader.number(4), reader.read(4)
        header = 8
        if size == 1:
            size, header = reader.number(8), 16
        if size < header:
            return None
        if number == 0 and (kind != b"ftyp" or not is_heif(file, at + header, size - header)):
            return None
        if kind == b"meta":
            file.seek(at + header)
            return file.read(size - header) if size <= min(MAX_META_BYTES, n_bytes - at) else None
        at += size
    return None


def is_heif(file: IO[bytes], at: int, n_bytes: int) -> bool:
    """Return whether a `ftyp` box names a brand of HEIF images."""
    file.seek(at)
    brands = file.read(min(n_bytes, 256))
    return brands[:4] in BRANDS or any(brands[i : i + 4] in BRANDS for i in range(8, len(brands), 4))


def read_boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each box."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big") or len(content) - at
        if size < 8:
            raise ValueError(f"a box of {size} bytes")
        yield content[at + 4 : at + 8], content[at + 8 : at + size]
        at += size


def read_index(meta: bytes) -> HeifIndex:
    """Parse a `meta` box. Raises: EOFError, ValueError if it is damaged."""
    index = HeifIndex()
    for kind, content in read_boxes(meta[4:]):
        if kind == b"iprp":
            read_properties(content, index)
        elif kind == b"idat":
            index.idat = content
        elif kind in FULL_BOXES:
            version, _, reader = BoxReader.of_full_box(content)
            n_id = 2 if version == 0 else 4
            if kind == b"pitm":
                index.primary = reader.number(n_id)
            elif kind == b"iinf":
                reader.number(n_id)
                index.kinds = dict(read_item_infos(reader.rest()))
            elif kind == b"iref":
                index.references = list(read_references(reader.rest(), n_id))
            else:
                index.places = dict(read_places(version, reader))
    return index


def read_item_infos(content: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, info in read_boxes(content):
        if kind == b"infe" and info[:1] in (b"\2", b"\3"):
            reader = BoxReader(info[4:])
            number = reader.number(2 if info[0] == 2 else 4)
            reader.number(2)  # protection
            yield number, reader.read(4)


def read_references(content: bytes, n_id: int) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    for kind, reference in read_boxes(content):
        reader = BoxReader(reference)
        source = reader.number(n_id)
        yield kind, source, tuple(reader.number(n_id) for _ in range(reader.number(2)))


def read_properties(content: bytes, index: HeifIndex) -> None:
    for kind, inner in read_boxes(content):
        if kind == b"ipco":
            index.properties = list(read_boxes(inner))
        elif kind == b"ipma":
            version, flags, reader = BoxReader.of_full_box(inner)
            n_bytes, mask = (2, 0x7FFF) if flags & 1 else (1, 0x7F)
            for _ in range(reader.number(4)):
                item = reader.number(2 if version == 0 else 4)
                numbers = [reader.number(n_bytes) for _ in range(reader.number(1))]
                index.associations[item] = tuple(number & mask for number in numbers)


def read_places(version: int, reader: BoxReader) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield items with the place of their first extent."""
    sizes = reader.number(2)
    n_offset, n_length, n_base, n_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(reader.number(2 if version < 2 else 4)):
        item = reader.number(2 if version < 2 else 4)
        construction = reader.number(2) & 15 if version else 0
        reader.number(2)  # another file, which FFmpeg does not open
        base, n_extents = reader.number(n_base), reader.number(2)
        if n_extents:
            reader.skip(n_index if version else 0)
            yield item, (construction, base + reader.number(n_offset), reader.number(n_length))
            # At once: they may be of no bytes, and 64 Ki of them in each 6 bytes of the file.
            reader.skip((n_extents - 1) * ((n_index if version else 0) + n_offset + n_length))


def describe_primary(file: IO[bytes], index: HeifIndex) -> HeifImage | None:
    """Return the primary image. Raises: EOFError, ValueError if the description of a grid is damaged."""
    if index.primary not in index.kinds:
        return None
    image, alpha = describe_image(file, index, index.primary), find_alpha(index)
    return image if alpha is None else replace(image, alpha=describe_image(file, index, alpha))


def describe_image(file: IO[bytes], index: HeifIndex, item: int) -> HeifImage:
    kind = index.kinds[item].decode("latin-1")
    orientation = read_orientation(index, item)
    if kind != "grid":
        return HeifImage(kind, (item,), orientation=orientation)
    reader = BoxReader(read_content(file, index, item))
    reader.number(1)  # version
    n_size = 4 if reader.number(1) & 1 else 2
    rows, columns = reader.number(1) + 1, reader.number(1) + 1
    width, height = reader.number(n_size), reader.number(n_size)
    tiles = index.references_from(b"dimg", item)
    if len(tiles) != rows * columns or len(tiles) > MAX_TILES or not width * height:
        raise ValueError(f"a grid of {columns}x{rows} with {len(tiles)} tiles")
    return HeifImage(kind, tiles, columns, rows, width, height, orientation)


def read_content(file: IO[bytes], index: HeifIndex, item: int) -> bytes:
    """Return the first bytes of an item's content: all of the description of a grid."""
    construction, offset, length = index.places.get(item, (0, 0, 0))
    if construction == 1:
        return index.idat[offset : offset + min(length, 64)]
    file.seek(offset)
    return file.read(min(length, 64))


def read_orientation(index: HeifIndex, item: int) -> Orientation:
    """Return what the rotations (irot) and mirrors (imir) of an item make of its pixels."""
    a, b, c, d = 1, 0, 0, 1
    for kind, content in index.properties_of(item):
        if kind == b"irot" and content:
            for _ in range(content[0] & 3):  # counter-clockwise: (x, y) moves to (y, -x)
                a, b, c, d = b, -a, d, -c
        elif kind == b"imir" and len(content) > 0:
            a, b, c, d = (-a, b, -c, d) if content[0] & 1 else (a, -b, c, -d)
    return Orientation.of_matrix(a, b, c, d)


def find_alpha(index: HeifIndex) -> int | None:
    """Return the item of the primary image's alpha plane, if it has one."""
    for kind, item, targets in index.references:
        if kind == b"auxl" and index.primary in targets and item in index.kinds:
            for found, content in index.properties_of(item):
                if found == b"auxC" and content[4:].rstrip(b"\0").startswith(ALPHA_TYPES):
                    return item
    return None
