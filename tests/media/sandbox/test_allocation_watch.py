"""Frames without memory, as FFmpeg logs them."""

from __future__ import annotations

import logging

import pytest

from inference.errors import MediaTooLarge, MediaTruncated, UnsupportedMedia
from inference.media.sandbox import allocation_watch
from inference.media.sandbox.allocation_watch import AllocationWatch, has_memory


def watch_of(*messages: str) -> AllocationWatch:
    watch = AllocationWatch()
    for message in messages:
        watch.handle(logging.LogRecord("libav.h264", logging.ERROR, "", 0, message, None, None))
    return watch


@pytest.mark.parametrize(
    "messages",
    [
        ("get_buffer() failed",),
        ("Invalid NAL unit size", "get_buffer() failed", "no frame!"),
        ("get_buffer() failed (repeated 3 more times)",),
        ("video_get_buffer: image parameters invalid", "get_buffer() failed", "get_buffer() failed"),
    ],
)
def test_a_frame_without_a_buffer_is_an_error(messages: tuple[str, ...]):
    with pytest.raises(MemoryError):
        watch_of(*messages).check()


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ("no frame!", "decode_slice_header error", "Error splitting the input into NAL units."),
        ("video_get_buffer: image parameters invalid", "get_buffer() failed"),
        ("Picture size 30000x30000 is invalid", "video_get_buffer: image parameters invalid", "get_buffer() failed"),
    ],
)
def test_a_damaged_frame_and_a_size_over_the_limit_are_none(messages: tuple[str, ...]):
    watch_of(*messages).check()


def test_a_bad_frame_is_one_if_there_is_no_memory_for_its_tables(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    monkeypatch.setattr(allocation_watch, "has_memory", asked.append)
    watch = AllocationWatch()
    watch.set_frame_size(10_000_000)
    watch.handle(logging.LogRecord("libav.h264", logging.ERROR, "", 0, "no frame!", None, None))
    with pytest.raises(MemoryError):
        watch.check()
    assert asked == [6_000_000]


def test_memory_can_be_asked_for():
    assert has_memory(1 << 20)
    assert not has_memory(1 << 50)


def test_lack_of_memory_explains_errors_without_a_reason():
    watch = watch_of("get_buffer() failed")
    for err in (UnsupportedMedia("no frame could be decoded"), MediaTruncated("the file is truncated")):
        assert isinstance(watch.reason_of(err), MemoryError)
        assert AllocationWatch().reason_of(err) is err
    named = MediaTooLarge("too long")
    assert watch.reason_of(named) is named
