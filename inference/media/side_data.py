"""What FFmpeg attaches to a frame beside its pixels."""

from __future__ import annotations

import ctypes
import gc
from functools import cache

import av
from av.dictionary import Dictionary
from av.sidedata.sidedata import SideDataContainer, Type


def find_side_data(frame: av.VideoFrame, kind: Type) -> bytes | None:
    """Return the side data of one kind, packed as FFmpeg's struct; None if the frame has none."""
    allow_unknown_kinds()
    # Not `frame.side_data`, which the frame keeps, and which keeps the frame: only a collection would free the two, and
    # by then dozens of frames are in memory.
    side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # PyAV's stub lacks it
    keep_metadata(side_data)
    found = side_data.get(kind)
    return None if found is None else bytes(found)


def keep_metadata(container: SideDataContainer) -> None:
    """Keep PyAV 18.1 from freeing the metadata of a frame's side data, which the frame frees, too.

    `SideData` wraps them in a `Dictionary` of its own, whose end frees them: every PNG with a colour profile would
    crash the process. So these dictionaries, of 60 bytes, never end.
    """
    for side_data in container:
        for one in gc.get_referents(side_data):
            if isinstance(one, Dictionary) and len(one):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


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
