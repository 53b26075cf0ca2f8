"""The binary messages of a session, little-endian.

    u8 kind (3 patch, 4 whole frame) | u8 flags (1 speaking) | u16 reserved | u32 generation | u32 frame | u32 pts_ms |
    u16 x | u16 y | u16 w | u16 h | u32 jpeg_len | jpeg | u32 pcm_len | pcm

`reserved` is 0, or, if the client requested it, the index of the background frame that the patch belongs on. Without
that index, a client cannot place the patch of an avatar that moves its head. If the client requested alpha,
`jpeg` is a WebP file, or PNG of a whole frame.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from inference.errors import InvalidRequest

PATCH, WHOLE = 3, 4
SPEAKING = 1
HEADER = struct.Struct("<BBHIIIHHHHI")  # all fields before the JPEG
LENGTH = struct.Struct("<I")
MAX_BACKGROUNDS = 1 << 16  # background frames that the 16 bits of `reserved` can number


@dataclass(frozen=True)
class FrameMessage:
    """One frame, as sent to a client.

    x, y, w, h: the rectangle that the image fills, in pixels of the whole frame.
    pcm: int16 little-endian mono, the audio of this frame, preceded by that of the frames dropped before it.
    visemes: fields of the event that is sent before the frame; None if no event is sent.
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
    visemes: Mapping[str, object] | None = None

    @property
    def viseme_event(self) -> str | None:
        """The event with the frame's visemes, as JSON; None if it has none."""
        if self.visemes is None:
            return None
        place = {"generation": self.generation, "frame": self.frame, "pts_ms": self.pts_ms}
        return json.dumps({"type": "visemes"} | place | dict(self.visemes))

    def pack(self) -> bytes:
        """Encode the message."""
        header = HEADER.pack(
            self.kind,
            SPEAKING if self.is_speaking else 0,
            self.background,
            self.generation,
            self.frame,
            self.pts_ms % (1 << 32),  # wraps after 49 days
            self.x,
            self.y,
            self.w,
            self.h,
            len(self.jpeg),
        )
        return b"".join((header, self.jpeg, LENGTH.pack(len(self.pcm)), self.pcm))


def unpack_frame(message: bytes) -> FrameMessage:
    """Decode what `FrameMessage.pack` encoded. Raises: InvalidRequest if the bytes are not such a message."""
    if len(message) < HEADER.size + LENGTH.size:
        raise InvalidRequest(f"a frame of {len(message)} bytes; expected at least {HEADER.size + LENGTH.size}")
    kind, flags, background, generation, frame, pts_ms, x, y, w, h, n_jpeg = HEADER.unpack_from(message)
    if kind not in (PATCH, WHOLE):
        raise InvalidRequest(f"a frame of kind {kind}; expected {PATCH} or {WHOLE}")
    jpeg_end = HEADER.size + n_jpeg
    if jpeg_end + LENGTH.size > len(message):
        raise InvalidRequest(f"a JPEG of {n_jpeg} bytes in a frame of {len(message)} bytes; expected a smaller one")
    (n_pcm,) = LENGTH.unpack_from(message, jpeg_end)
    pcm = message[jpeg_end + LENGTH.size :]
    if len(pcm) != n_pcm:
        raise InvalidRequest(f"{len(pcm)} bytes of audio; expected the {n_pcm} that the frame declares")
    jpeg, is_speaking = message[HEADER.size : jpeg_end], bool(flags & SPEAKING)
    return FrameMessage(kind, is_speaking, generation, frame, pts_ms, x, y, w, h, jpeg, pcm, background)
