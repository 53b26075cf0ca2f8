"""Segments of `viseme sync` as they are written on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.lip_sync import SyncSegment

SECONDS = r"\d+(?:\.\d+)?"
SEGMENT = re.compile(
    rf"(?P<start>{SECONDS})-(?P<end>{SECONDS})?"
    rf"(?:@(?P<audio>\d{{1,4}})(?::(?P<audio_start>{SECONDS})-(?P<audio_end>{SECONDS})?)?)?"
)


def parse_segment(text: str) -> SyncSegment:
    """Parse START-[END][@AUDIO[:FROM-[TO]]], times in seconds. Raises: InvalidRequest."""
    from inference.lip_sync import SyncSegment

    match = SEGMENT.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            f"--segment {text!r}: expected START-END@AUDIO:FROM-TO in seconds, for example 2-5, 2-5@1 or 2-@1:0.5-3"
        )
    found = {name: None if value is None else float(value) for name, value in match.groupdict().items()}
    return SyncSegment(
        start_s=found["start"] or 0.0,
        end_s=found["end"],
        audio=int(found["audio"] or 0),
        audio_start_s=found["audio_start"] or 0.0,
        audio_end_s=found["audio_end"],
    )
