from __future__ import annotations

import numpy as np
import pytest

from inference.lip_reading.held_mouths import silence_held
from inference.lip_reading.preprocess import MouthCrop
from inference.lip_reading.windows import SILENT_GAP


def mouths(pattern: list[tuple[bool, int]]) -> list[MouthCrop]:
    crop, lips = np.zeros((64, 128, 3), np.uint8), np.zeros((20, 2), np.float32)
    return [MouthCrop(crop, lips, is_held=is_held) for is_held, n in pattern for _ in range(n)]


@pytest.mark.parametrize(
    ("pattern", "silent"),
    [
        ([(False, 3), (True, SILENT_GAP - 1), (False, 2)], []),
        ([(False, 3), (True, SILENT_GAP), (False, 2)], [(3, 3 + SILENT_GAP)]),
        ([(False, 1), (True, 400)], [(1, 401)]),
        ([(True, 30), (False, 1), (True, 10), (False, 1), (True, 26)], [(0, 30), (42, 68)]),
        ([(False, 1), (True, 1)] * 40, []),
        ([], []),
    ],
)
def test_long_runs_of_held_frames_are_silent(pattern: list[tuple[bool, int]], silent: list[tuple[int, int]]):
    given = mouths(pattern)
    found = list(silence_held(given))
    assert [mouth.is_held for mouth in found] == [mouth.is_held for mouth in given]
    expected = [any(start <= i < end for start, end in silent) for i in range(len(given))]
    assert [mouth.silent_length >= SILENT_GAP for mouth in found] == expected


def test_few_mouths_are_buffered():
    taken = 0

    def count():
        nonlocal taken
        for mouth in mouths([(True, 200)]):
            taken += 1
            yield mouth

    for n_yielded, _ in enumerate(silence_held(count())):
        assert taken - n_yielded <= SILENT_GAP + 1
