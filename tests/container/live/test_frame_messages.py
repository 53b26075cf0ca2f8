from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from container.live.frame_messages import PATCH, WHOLE, FrameMessage, unpack_frame
from inference.errors import InvalidRequest

MESSAGE = FrameMessage(
    PATCH, True, 2, 70_000, 2_800_000, 549, 231, 182, 181, b"\xff\xd8jpeg\xff\xd9", b"\x01\x00\xff\x7f"
)


def test_the_bytes_are_those_of_the_design():
    packed = MESSAGE.pack()
    head = "03 01 0000 02000000 70110100 80b92a00 2502 e700 b600 b500 08000000"
    assert packed[:28] == bytes.fromhex(head.replace(" ", ""))
    assert packed[28:] == b"\xff\xd8jpeg\xff\xd9" + b"\x04\x00\x00\x00" + b"\x01\x00\xff\x7f"


@pytest.mark.parametrize(
    "message", [MESSAGE, replace(MESSAGE, kind=WHOLE, is_speaking=False, pcm=b"", background=65_535)]
)
def test_what_is_packed_is_unpacked(message: FrameMessage):
    assert unpack_frame(message.pack()) == message


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"", "a frame of 0 bytes"),
        (b"\x01" + MESSAGE.pack()[1:], "kind 1"),
        (MESSAGE.pack()[:-1], "3 bytes of audio; expected the 4"),
        (MESSAGE.pack() + b"\x00", "5 bytes of audio; expected the 4"),
        (MESSAGE.pack()[:24] + struct.pack("<I", 1 << 31) + MESSAGE.pack()[28:], "a JPEG of 2147483648 bytes"),
    ],
)
def test_damaged_frames_are_refused(damaged: bytes, reason: str):
    with pytest.raises(InvalidRequest, match=reason):
        unpack_frame(damaged)
