"""The binary messages of older clients, little-endian.

    request     u32 name_len | name | u32 frame_id | u32 audio_len | audio
                u8 name_len | name | u32 frame_id        the total length distinguishes the two forms
    response    u8 1 | u32 frame_id | u32 ms | u32 image_len | JPEG | u32 bounds_len (16) | f32 x 4
    error       u8 0 | u32 0 | u32 ms | u32 len | text
    video frame u8 2 | u32 frame_id | u8 type_len | type | u32 len | JPEG

Source: webcodectest's server.py, optimized_server.py and the proxy's main.go; the layouts only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from inference.errors import InvalidRequest

FAILED, DONE, VIDEO_FRAME = 0, 1, 2
MAX_NAME_BYTES = 255
MAX_AUDIO_BYTES = 2 * 48_000 * 10  # 10 s of int16 audio at 48 kHz
U32 = struct.Struct("<I")
HEADER = struct.Struct("<BIII")
MIN_REQUEST_BYTES = 5  # the short form with an empty name
MAX_FRAME_ID = (1 << 32) - 1


@dataclass(frozen=True)
class FrameRequest:
    """A request for one frame. audio: int16 mono PCM that the avatar speaks in it; None for the packaged audio."""

    model_name: str
    frame_id: int
    audio: bytes | None = None


def parse_request(message: bytes) -> FrameRequest:
    """Decode a request. Each declared length is checked before anything is sliced.

    Raises: InvalidRequest if the message has neither form.
    """
    n = len(message)
    if n < MIN_REQUEST_BYTES:
        raise InvalidRequest(f"Binary message too short: {n} bytes; expected at least {MIN_REQUEST_BYTES}")
    if n == MIN_REQUEST_BYTES + message[0]:
        return FrameRequest(decode_name(message[1:-4]), U32.unpack_from(message, n - 4)[0])
    return parse_long_request(message)


def parse_long_request(message: bytes) -> FrameRequest:
    """Decode a request of the long form. Raises: InvalidRequest."""
    n = len(message)
    if n < 3 * U32.size:
        raise InvalidRequest(f"Binary message too short: {n} bytes; its lengths fit neither form of a request")
    (n_name,) = U32.unpack_from(message)
    if n_name > min(n - 3 * U32.size, MAX_NAME_BYTES):
        raise InvalidRequest(
            f"Invalid model name length: {n_name} in a message of {n} bytes; expected at most {MAX_NAME_BYTES}"
        )
    frame_id, n_audio = struct.unpack_from("<II", message, U32.size + n_name)
    audio_start = 3 * U32.size + n_name
    if n_audio != n - audio_start or n_audio > MAX_AUDIO_BYTES:
        raise InvalidRequest(
            f"Invalid audio data length: {n_audio}, but {n - audio_start} bytes follow; "
            f"expected both the same, at most {MAX_AUDIO_BYTES}"
        )
    return FrameRequest(decode_name(message[U32.size : U32.size + n_name]), frame_id, message[audio_start:] or None)


def decode_name(raw: bytes) -> str:
    """Decode a model name. Raises: InvalidRequest if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as err:
        raise InvalidRequest(f"Invalid model name: {raw[:20]!r} is not UTF-8") from err


def pack_response(frame_id: int, took_ms: float, jpeg: bytes, bounds: Sequence[float]) -> bytes:
    """Encode a response. bounds: left, top, right, bottom of the face, in pixels of the whole frame."""
    packed_bounds = struct.pack(f"<{len(bounds)}f", *bounds)
    header = HEADER.pack(DONE, frame_id, int(took_ms), len(jpeg))
    return b"".join((header, jpeg, U32.pack(len(packed_bounds)), packed_bounds))


def pack_error(took_ms: float, message: str) -> bytes:
    """Encode an error."""
    text = message.encode()
    return HEADER.pack(FAILED, 0, int(took_ms), len(text)) + text


def pack_video_frame(frame_id: int, video_type: str, jpeg: bytes) -> bytes:
    """Encode a frame of the source video."""
    kind = video_type.encode()
    return b"".join((struct.pack("<BIB", VIDEO_FRAME, frame_id, len(kind)), kind, U32.pack(len(jpeg)), jpeg))
