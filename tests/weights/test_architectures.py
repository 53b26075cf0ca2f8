from __future__ import annotations

import json

import pytest

from inference.weights.architectures import WAV2LIP, sizes_from_json


@pytest.mark.parametrize(
    "widths",
    [
        [[1, 2]],
        [1, 2, 3, 4],
        [[True] * 7, [3] * 5, [4] * 7, 7],
        [[0] * 7, [3] * 5, [4] * 7, 7],
        [[4] * 7, [3] * 5, [4] * 7, 7, []],
        [[4] * 7, [3] * 5, [4] * 7, 7, 5],
    ],
)
def test_invalid_widths_are_refused(widths: list):
    with pytest.raises(ValueError, match="its widths are"):
        sizes_from_json(WAV2LIP, json.dumps(widths))
