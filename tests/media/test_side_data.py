from __future__ import annotations

import gc
import sys

import av
import pytest
from av.sidedata.sidedata import Type

from inference.media.side_data import find_side_data


@pytest.mark.parametrize("kind", [Type.DISPLAYMATRIX, Type.ICC_PROFILE])
def test_a_frame_is_not_kept_by_a_look_at_its_side_data(kind: Type):
    """A cycle would keep dozens of frames: 4K H.264 of low bit rates was over the memory of its budget."""
    frame = av.VideoFrame(64, 64, "yuv420p")
    gc.disable()
    try:
        n_references = sys.getrefcount(frame)
        assert find_side_data(frame, kind) is None
        assert sys.getrefcount(frame) == n_references
    finally:
        gc.enable()
