from __future__ import annotations

import struct

import numpy as np
import pytest
from support.video_files import make_video, numbered_frames

from inference.errors import MediaTruncated
from inference.media import open_media
from inference.media.media_warnings import LONG_HEADER


def read(contents: bytes) -> tuple[int, tuple[str, ...]]:
    with open_media(contents) as media:
        return sum(len(clip.frames) for clip in media.read_clips(25.0)), media.warnings


def with_duration(contents: bytes, container: str, duration_s: float) -> bytes:
    """Return the file with another duration in its header."""
    if container == "matroska":
        at = contents.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes, in milliseconds
        packed = struct.pack(">d", duration_s * 1000)
    else:
        at = contents.index(b"duration") + 9
        packed = struct.pack(">d", duration_s)
    return contents[:at] + packed + contents[at + 8 :]


def noisy_video(container: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (75, 48, 64, 3), np.uint8)
    return make_video(list(noise), container=container)


@pytest.mark.parametrize("container", ["matroska", "flv"])
def test_a_whole_file_may_declare_a_longer_duration(container: str):
    longer = with_duration(make_video(numbered_frames(50), container=container), container, 60.0)
    assert read(longer) == (50, (LONG_HEADER,))


@pytest.mark.parametrize("container", ["matroska", "flv"])
@pytest.mark.parametrize("n_lost", [1, 5, 2000, 20_000])
def test_a_long_header_does_not_hide_a_missing_end(container: str, n_lost: int):
    with pytest.raises(MediaTruncated, match="truncated"):
        read(with_duration(noisy_video(container), container, 60.0)[:-n_lost])


def test_a_file_whose_middle_is_lost_is_truncated():
    contents = bytearray(noisy_video("matroska"))
    contents[len(contents) // 2 :] = bytes(len(contents) - len(contents) // 2)
    with pytest.raises(MediaTruncated, match="truncated"):
        read(bytes(contents))


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_subtitles_may_last_longer_than_the_video(container: str):
    contents = make_video(numbered_frames(20), container=container, subtitle_at_s=36_000)
    assert read(contents)[0] == 20
