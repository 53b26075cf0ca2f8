from __future__ import annotations

import pytest

from container.commands.sync_segments import parse_segment
from inference.errors import InvalidRequest
from inference.lip_sync import SyncSegment


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("2-5", SyncSegment(2, 5)),
        ("0.5-", SyncSegment(0.5)),
        ("2-5@1", SyncSegment(2, 5, 1)),
        ("2-@1:0.5-3", SyncSegment(2, None, 1, 0.5, 3)),
        (" 2-5@0:1- ", SyncSegment(2, 5, 0, 1)),
    ],
)
def test_a_segment_is_parsed(text: str, segment: SyncSegment):
    assert parse_segment(text) == segment


@pytest.mark.parametrize("text", ["", "2", "-5", "2-5@", "2-5@a", "2-5:1-3", "2-5@1:3", "1e3-5", "2-5@12345"])
def test_a_malformed_segment_is_named(text: str):
    with pytest.raises(InvalidRequest, match="expected START-END@AUDIO:FROM-TO in seconds"):
        parse_segment(text)
