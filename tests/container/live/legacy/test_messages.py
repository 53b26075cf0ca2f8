from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from container.live.legacy.messages import (
    MAX_AUDIO_BYTES,
    FrameRequest,
    pack_error,
    pack_response,
    pack_video_frame,
    parse_request,
)
from inference.errors import InvalidRequest

LONG = struct.pack("<I", 7) + b"sanders" + struct.pack("<II", 50, 0)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "golden" / "protocol.json").read_text())
    return found


def test_recorded_requests_are_parsed(recorded: dict[str, Any]):
    for one in recorded["requests"]:
        audio = bytes.fromhex(one.get("audio_hex", "")) or None
        assert parse_request(bytes.fromhex(one["hex"])) == FrameRequest(one["model"], one["frame_id"], audio)


def test_recorded_responses_are_packed_byte_for_byte(recorded: dict[str, Any]):
    for one in recorded["responses"]:
        decoded, message = one["decoded"], bytes.fromhex(one["hex"])
        if one["kind"] == "ok":
            jpeg = bytes.fromhex(decoded["image_hex"])
            assert (
                pack_response(decoded["frame_id"], decoded["processing_time_ms"] + 0.9, jpeg, decoded["bounds"])
                == message
            )
        else:
            assert pack_error(decoded["processing_time_ms"], decoded["error"]) == message


def test_recorded_video_frames_are_packed_byte_for_byte(recorded: dict[str, Any]):
    for one in recorded["video_frame_replies"]:
        decoded = one["decoded"]
        packed = pack_video_frame(decoded["frame_id"], decoded["video_type"], bytes.fromhex(decoded["data_hex"]))
        assert packed == bytes.fromhex(one["hex"])


def test_errors_begin_as_the_recorded_ones(recorded: dict[str, Any]):
    for one in recorded["responses"]:
        if one["id"].endswith(("too_short", "name_too_long")):
            with pytest.raises(InvalidRequest, match=one["decoded"]["error"]):
                parse_request(bytes.fromhex(one["request_hex"]))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (LONG, FrameRequest("sanders", 50)),
        (LONG[:-4] + struct.pack("<I", 2) + b"\x01\x02", FrameRequest("sanders", 50, b"\x01\x02")),
        (b"\x07sanders\x32\x00\x00\x00", FrameRequest("sanders", 50)),
        (b"\x07m\xc3\xbcller" + struct.pack("<I", 70_000), FrameRequest("müller", 70_000)),
        (bytes(12), FrameRequest("", 0)),
        (bytes(5), FrameRequest("", 0)),
    ],
)
def test_the_length_distinguishes_both_forms(message: bytes, expected: FrameRequest):
    assert parse_request(message) == expected


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x01\x00", "Binary message too short: 2 bytes"),
        (bytes(6), "Binary message too short: 6 bytes"),
        (struct.pack("<I", 500) + bytes(15), "Invalid model name length: 500"),
        (struct.pack("<I", 0xFFFFFFFF) + bytes(20), "Invalid model name length: 4294967295"),
        (struct.pack("<I", 256) + bytes(264), "Invalid model name length: 256"),
        (LONG[:-4] + struct.pack("<I", 0xFFFFFFFF) + b"\x01\x02", "Invalid audio data length: 4294967295, but 2 bytes"),
        (LONG + b"\x00", "Invalid audio data length: 0, but 1 bytes"),
        (LONG[:-4] + struct.pack("<I", MAX_AUDIO_BYTES + 2) + bytes(MAX_AUDIO_BYTES + 2), "Invalid audio data length"),
        (b"\x02\xff\xfe\x00\x00\x00\x00", "Invalid model name: .* is not UTF-8"),
    ],
)
def test_other_messages_are_rejected(message: bytes, reason: str):
    with pytest.raises(InvalidRequest, match=reason):
        parse_request(message)


def test_no_message_has_both_forms():
    """A message of the long form never has the short form too, for random lengths."""
    rng = random.Random(7)
    for _ in range(2000):
        name, audio = "n" * rng.randrange(256), rng.randbytes(2 * rng.randrange(200))
        raw = name.encode()
        message = struct.pack("<I", len(raw)) + raw + struct.pack("<II", 9, len(audio)) + audio
        assert parse_request(message) == FrameRequest(name, 9, audio or None)
