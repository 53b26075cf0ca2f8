from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest

from inference.media.sandbox.shared_memory import SharedFrameBuffer


def test_whoever_has_the_descriptor_cannot_resize_the_memory():
    frame = np.full((4, 4, 3), 7, np.uint8)
    with contextlib.closing(SharedFrameBuffer.create(4096)) as buffer:
        buffer.write(1, [frame])
        for size in (0, 4096, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(buffer.fd, size)
        assert np.array_equal(buffer.read(1, [(4, 4)])[0], frame)
