"""Whether the end of a file is missing."""

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
