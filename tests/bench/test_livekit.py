"""How `bench.livekit` pairs images with their audio."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from bench.livekit import HandedImage, Recording


def test_images_are_paired_with_the_audio_since_the_same_interrupt():
    """An interrupt drops the image of audio that was handed out already."""
    frame: Any = None
    shown = [(1.0, 0, 0), (1.04, 0, 1), (1.08, 1, None), (2.01, 1, 0), (2.05, 1, 1)]
    images = [(at_s, HandedImage(frame, n_clears, speech)) for at_s, n_clears, speech in shown]
    audio_s = defaultdict(list, {0: [1.0, 1.04, 1.08], 1: [2.0, 2.04]})
    recording = Recording([], images, audio_s, clears_s=[1.06])
    assert recording.offsets_ms() == pytest.approx([0, 0, 10, 10])
