"""The binary messages of a session, little-endian.

    u8 kind (3 patch, 4 whole frame) | u8 flags (1 speaking) | u16 reserved | u32 generation | u32 frame | u32 pts_ms |
    u16 x | u16 y | u16 w | u16 h | u32 jpeg_len | jpeg | u32 pcm_len | pcm

`reserved` is 0, or for a client that asked for it the number of the frame that lies under a patch: without it, a
patch of an avatar that moves its head cannot be put in its place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from inference.errors import InvalidRequest

PATCH, WHOLE = 3, 4
SPEAKING = 1
HEAD = struct.Struct("<BBHIIIHHHHI")  # up to the JPEG
LENGTH = struct.Struct("<I")
MOST_BACKGROUNDS = 1 << 16  # that fit in `reserved`


@dataclass(frozen=True)
class FrameMessage:
    """One frame on its way to a client. x, y, w, h: where the picture goes, in pixels of the whole frame.

    pcm: int16, little-endian, mono: the sound of this frame, behind that of frames before it that were dropped.
    """

    kind: int
    is_speaking: bool
    generation: int
    frame: int
    pts_ms: int
    x: int
    y: int
    w: int
    h: int
    jpeg: bytes
    pcm: bytes
    background: int = 0

    def pack(self) -> bytes:
        head = HEAD.pack(
            self.kind,
            SPEAKING if self.is_speaking else 0,
            self.background,
            self.generation,
            self.frame,
            self.pts_ms % (1 << 32),  # after 49 days it begins anew
            self.x,
            self.y,
            self.w,
            self.h,
            len(self.jpeg),
        )
        return b"".join((head, self.jpeg, LENGTH.pack(len(self.pcm)), self.pcm))


def unpack_frame(message: bytes) -> FrameMessage:
    """What `FrameMessage.pack` made. Raises: InvalidRequest for anything else."""
    if len(message) < HEAD.size + LENGTH.size:
        raise InvalidRequest(f"a frame of {len(message)} bytes; expected {HEAD.size + LENGTH.size} at least")
    kind, flags, background, generation, frame, pts_ms, x, y, w, h, n_jpeg = HEAD.unpack_from(message)
    if kind not in (PATCH, WHOLE):
        raise InvalidRequest(f"a frame of kind {kind}; expected {PATCH} or {WHOLE}")
    behind = HEAD.size + n_jpeg
    if behind + LENGTH.size > len(message):
        raise InvalidRequest(f"a picture of {n_jpeg} bytes in a frame of {len(message)}")
    (n_pcm,) = LENGTH.unpack_from(message, behind)
    pcm = message[behind + LENGTH.size :]
    if len(pcm) != n_pcm:
        raise InvalidRequest(f"{len(pcm)} bytes of sound; expected the {n_pcm} that the frame declares")
    jpeg, is_speaking = message[HEAD.size : behind], bool(flags & SPEAKING)
    return FrameMessage(kind, is_speaking, generation, frame, pts_ms, x, y, w, h, jpeg, pcm, background)
