"""What FFmpeg attaches to a frame beside its pixels."""

from __future__ import annotations

from functools import cache

import av
from av.sidedata.sidedata import Type


def find_side_data(frame: av.VideoFrame, kind: Type) -> bytes | None:
    """Return the side data of one kind, packed as FFmpeg's struct; None if the frame has none."""
    allow_unknown_kinds()
    found = frame.side_data.get(kind)  # type: ignore[call-overload]  # PyAV declares a mapping from str
    return None if found is None else bytes(found)


@cache
def allow_unknown_kinds() -> None:
    """Make PyAV list the side data of a frame if FFmpeg attached a kind that PyAV has no name for.

    Otherwise `frame.side_data` raises ValueError for every image with EXIF tags (kind 31), and for MV-HEVC (29).
    """

    def add_member(cls: type[Type], value: object) -> Type:
        member = object.__new__(cls)
        member.__dict__.update(_name_=f"UNKNOWN_{value}", _value_=value)
        return member

    Type._missing_ = classmethod(add_member)  # type: ignore[assignment, method-assign]
