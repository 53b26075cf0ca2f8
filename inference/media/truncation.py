"""Whether the end of a file is missing, by its structure: a declared duration may be a guess or a mistake."""

from __future__ import annotations

import io
from typing import IO

# A file is truncated if its declared duration exceeds its content by more than both.
LOST_END_S = 0.25
LOST_END_SHARE = 0.02
# FFmpeg estimates their duration from the bytes it finds, so that it cannot show what is missing.
FORMATS_WITHOUT_DURATION = ("mpeg", "h264", "hevc", "m4v", "mjpeg", "ivf", "ogg")
PS_PACK = b"\x00\x00\x01\xba"
PS_END = 0xB9
PS_TAIL_BYTES = 256 << 10  # several packets: one has at most 64 KiB
EBML_HEADER, MATROSKA_SEGMENT, MATROSKA_CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
MAX_ELEMENTS = 100_000  # of the segment; a cluster lasts a second or more
FLV_TAG_BYTES = 11  # the header of a tag
FLV_TAG_TYPES = (8, 9, 18)  # audio, video, script


def is_cut_off(file: IO[bytes]) -> bool:
    """Return whether an MPEG program stream ends inside a packet: such a file declares no duration to compare."""
    position = file.tell()
    start = max(file.seek(0, io.SEEK_END) - PS_TAIL_BYTES, 0)
    file.seek(start)
    tail = file.read()
    file.seek(position)
    at = tail.find(PS_PACK)
    while 0 <= at < len(tail) - 4:
        if tail[at : at + 3] != b"\x00\x00\x01":
            return False  # padding or unknown bytes after the last packet
        kind = tail[at + 3]
        if kind == PS_END:
            return False
        if kind == PS_PACK[3]:
            is_mpeg2 = len(tail) > at + 13 and tail[at + 4] >> 6 == 1
            at += 14 + (tail[at + 13] & 7) if is_mpeg2 else 12
        else:
            at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return at > len(tail)


def is_whole(file: IO[bytes], format_name: str, last_position: int) -> bool:
    """Return whether the structure of a Matroska or FLV file shows that its end is there and was read.

    last_position: of the last packet that was read. False if the structure cannot show it.
    """
    position = file.tell()
    try:
        if format_name.startswith("matroska"):
            return is_whole_matroska(file, last_position)
        return format_name == "flv" and is_whole_flv(file)
    finally:
        file.seek(position)


def is_whole_matroska(file: IO[bytes], last_position: int) -> bool:
    """Return whether the elements of the segment fill it, it ends in the file, and its last cluster was read."""
    n_bytes = file.seek(0, io.SEEK_END)
    kind, start, size = read_element(file, 0)
    if kind != EBML_HEADER or size is None:
        return False
    kind, at, size = read_element(file, start + size)
    if kind != MATROSKA_SEGMENT or size is None:
        return False  # written live: it may end anywhere
    end, last_cluster = at + size, 0
    for _ in range(MAX_ELEMENTS):
        if at >= end:
            break
        kind, start, size = read_element(file, at)
        if size is None:
            return False
        last_cluster = at if kind == MATROSKA_CLUSTER else last_cluster
        at = start + size
    return at == end <= n_bytes and last_position >= last_cluster > 0


def read_element(file: IO[bytes], at: int) -> tuple[int, int, int | None]:
    """Return the ID of an EBML element, the position of its content, and its size: None if unknown or no element."""
    file.seek(at)
    head = file.read(12)
    id_bytes = count_leading(head[:1])
    size_bytes = count_leading(head[id_bytes : id_bytes + 1])
    if not 1 <= id_bytes <= 4 or not 1 <= size_bytes <= 8 or len(head) < id_bytes + size_bytes:
        return 0, at, None
    mask = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & mask
    return int.from_bytes(head[:id_bytes], "big"), at + id_bytes + size_bytes, None if size == mask else size


def count_leading(byte: bytes) -> int:
    """Return the length of an EBML number by its first byte: one more than its leading zero bits."""
    return 9 - byte[0].bit_length() if byte else 0


def is_whole_flv(file: IO[bytes]) -> bool:
    """Return whether the file ends with a whole tag: after it, its size is repeated."""
    end = file.seek(0, io.SEEK_END) - 4
    file.seek(max(end, 0))
    size = int.from_bytes(file.read(4), "big")
    if not FLV_TAG_BYTES <= size <= end:
        return False
    file.seek(end - size)
    head = file.read(4)
    return head[0] & 0x1F in FLV_TAG_TYPES and int.from_bytes(head[1:], "big") == size - FLV_TAG_BYTES
