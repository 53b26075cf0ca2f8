from __future__ import annotations

import numpy as np

from inference.rendering import Portrait
from inference.rendering.mouth_shape import MouthShape

SIDE = 128
INNER_LIPS = ((61, 67), (62, 66), (63, 65))


def gap(landmarks: np.ndarray) -> float:
    return float(np.mean([np.hypot(*(landmarks[low] - landmarks[high])) for high, low in INNER_LIPS]))


def test_an_idle_person_keeps_the_mouth_closed_and_moves_the_head():
    shots = list(Portrait(21, SIDE, SIDE).idle_frames(25))
    assert [float(shot.at_s) for shot in shots] == [i / 25 for i in range(25)]
    assert max(gap(shot.landmarks[0]) for shot in shots) < 0.2
    assert np.ptp([shot.landmarks[0][30, 0] for shot in shots]) > 0.2


def test_frames_of_one_time_and_noise_differ_only_by_the_mouth():
    portrait = Portrait(21, SIDE, SIDE)
    shut, landmarks = portrait.draw(0.4, MouthShape(), 7)
    wide, opened = portrait.draw(0.4, MouthShape(open=1.5), 7)
    assert gap(opened) > gap(landmarks) + 3
    eyes = int(landmarks[36:48, 1].max())
    assert np.array_equal(shut[:eyes], wide[:eyes])
    assert not np.array_equal(shut[eyes:], wide[eyes:])
    assert np.array_equal(shut, Portrait(21, SIDE, SIDE).draw(0.4, MouthShape(), 7)[0])
    assert not np.array_equal(shut, portrait.draw(0.4, MouthShape(), 8)[0])
