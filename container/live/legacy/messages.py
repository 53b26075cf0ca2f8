"""The binary messages of older clients, little-endian.

    request     u32 name_len | name | u32 frame_id | u32 audio_len | audio
                u8 name_len | name | u32 frame_id        the total length tells the two apart
    answer      u8 1 | u32 frame_id | u32 ms | u32 image_len | JPEG | u32 bounds_len (16) | f32 x 4
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
MAX_NAME = 255  # bytes
MAX_AUDIO = 2 * 48_000 * 10  # bytes: ten seconds at the highest rate
U32 = struct.Struct("<I")
HEAD = struct.Struct("<BIII")
N_SHORTEST = 5  # bytes: an empty name in the short form
MAX_FRAME_ID = (1 << 32) - 1


@dataclass(frozen=True)
class FrameRequest:
    """A frame that is asked for by its number. audio: 16-bit PCM to be spoken in it; None is the packaged audio."""

    model_name: str
    frame_id: int
    audio: bytes | None = None


def parse_request(message: bytes) -> FrameRequest:
    """Lengths are compared with what came before anything is cut out. Raises: InvalidRequest."""
    n = len(message)
    if n < N_SHORTEST:
        raise InvalidRequest(f"Binary message too short: {n} bytes; expected {N_SHORTEST} at least")
    if n == N_SHORTEST + message[0]:
        return FrameRequest(decode_name(message[1:-4]), U32.unpack_from(message, n - 4)[0])
    return parse_long_request(message)


def parse_long_request(message: bytes) -> FrameRequest:
    n = len(message)
    if n < 3 * U32.size:
        raise InvalidRequest(f"Binary message too short: {n} bytes, with lengths of neither form of a request")
    (n_name,) = U32.unpack_from(message)
    if n_name > min(n - 3 * U32.size, MAX_NAME):
        raise InvalidRequest(f"Invalid model name length: {n_name} in a message of {n} bytes, {MAX_NAME} at most")
    frame_id, n_audio = struct.unpack_from("<II", message, U32.size + n_name)
    at = 3 * U32.size + n_name
    if n_audio != n - at or n_audio > MAX_AUDIO:
        raise InvalidRequest(f"Invalid audio data length: {n_audio}, and {n - at} bytes came; at most {MAX_AUDIO}")
    return FrameRequest(decode_name(message[U32.size : U32.size + n_name]), frame_id, message[at:] or None)


def decode_name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as err:
        raise InvalidRequest(f"Invalid model name: {raw[:20]!r} is no UTF-8") from err


def pack_answer(frame_id: int, took_ms: float, jpeg: bytes, bounds: Sequence[float]) -> bytes:
    """bounds: left, top, right, bottom of the face, in pixels of the whole frame."""
    numbers = struct.pack(f"<{len(bounds)}f", *bounds)
    return b"".join((HEAD.pack(DONE, frame_id, int(took_ms), len(jpeg)), jpeg, U32.pack(len(numbers)), numbers))


def pack_error(took_ms: float, message: str) -> bytes:
    text = message.encode()
    return HEAD.pack(FAILED, 0, int(took_ms), len(text)) + text


def pack_video_frame(frame_id: int, video_type: str, jpeg: bytes) -> bytes:
    named = video_type.encode()
    return b"".join((struct.pack("<BIB", VIDEO_FRAME, frame_id, len(named)), named, U32.pack(len(jpeg)), jpeg))
