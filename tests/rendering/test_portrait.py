from __future__ import annotations

import numpy as np

from inference.rendering import Portrait
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import NOISE_STREAM

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


def test_mattes_tell_the_person_from_the_room_and_change_no_pixel_of_the_frame():
    portrait = Portrait(21, SIDE, SIDE)
    plain = list(portrait.idle_frames(2))
    for i, (rendered, matte) in enumerate(portrait.idle_mattes(2)):
        np.testing.assert_array_equal(rendered.frame, plain[i].frame)
        room = portrait._scene.draw_empty(np.random.default_rng((21, NOISE_STREAM, i)))
        np.testing.assert_array_equal(rendered.frame[matte == 0], room[matte == 0])
        left, top = rendered.landmarks[0].min(axis=0).astype(int)
        right, bottom = rendered.landmarks[0].max(axis=0).astype(int)
        assert matte[top:bottom, left:right].min() == 255  # the face
        assert 0.3 < (matte == 0).mean() < 0.8
