"""The size of an image by its header, for images that FFmpeg's probe refuses because they are too large."""

from __future__ import annotations

import struct
from typing import IO

MAX_JPEG_SEGMENTS = 1000  # before the header of the frame
# Start of frame, of any process; the others in this range are tables (C4, CC) and an extension (C8).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image_size(file: IO[bytes]) -> tuple[int, int] | None:
    """Return the width and height of a JPEG, PNG, WebP or BMP image as stored; None if there is no such header.

    Leaves the position of the file.
    """
    position = file.tell()
    try:
        file.seek(0)
        head = file.read(32)
        if head.startswith(b"\xff\xd8"):
            return read_jpeg_size(file)
        if len(head) < 30:
            return None
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", head[16:24])
            return width, height
        if head.startswith(b"BM"):
            width, height = struct.unpack("<ii", head[18:26])
            return abs(width), abs(height)
        return read_webp_size(head) if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None
    finally:
        file.seek(position)


def read_jpeg_size(file: IO[bytes]) -> tuple[int, int] | None:
    """Return the size that the first frame header of a JPEG declares."""
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        file.seek(at)
        segment = file.read(9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        if segment[1] == 0xFF:  # fill bytes
            at += 1
        elif segment[1] in JPEG_FRAMES:
            height, width = struct.unpack(">HH", segment[5:9])
            return width, height
        else:
            at += 2 + int.from_bytes(segment[2:4], "big")
    return None


def read_webp_size(head: bytes) -> tuple[int, int] | None:
    """Return the size of a WebP image by its first chunk. Source: RFC 9649."""
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None
