from __future__ import annotations

import numpy as np
import pytest

from inference.rendering.appearance import HAIR_STYLES, SKINS, Appearance, head_motion

TIMES_S = np.arange(0, 20, 0.04)


def test_equal_seeds_look_equal():
    assert Appearance.from_seed(5) == Appearance.from_seed(5)
    assert Appearance.from_seed(5) != Appearance.from_seed(6)


def test_people_differ():
    appearances = [Appearance.from_seed(seed) for seed in range(60)]
    assert {nearest_skin(appearance) for appearance in appearances} == set(range(len(SKINS)))
    assert {appearance.hair_style for appearance in appearances} == set(HAIR_STYLES)
    assert len({appearance.background for appearance in appearances}) == 5
    for name in ("face_width", "jaw_width", "lip_fullness", "nose_width"):
        assert np.std([getattr(appearance, name) for appearance in appearances]) > 0.01


def nearest_skin(appearance: Appearance) -> int:
    return int(np.argmin([np.abs(np.subtract(appearance.skin, skin)).sum() for skin in SKINS]))


def test_a_pose_depends_on_time_only():
    appearance = Appearance.from_seed(3)
    slow, fast = head_motion(appearance, 3, TIMES_S), head_motion(appearance, 3, np.arange(0, 20, 0.01))
    for one, other in zip(slow, fast[::4], strict=True):
        assert one.yaw == pytest.approx(other.yaw)
        assert one.blink == pytest.approx(other.blink, abs=1e-6)
    assert head_motion(appearance, 3, TIMES_S[100:101])[0].x == pytest.approx(slow[100].x)


def test_heads_move_slowly_and_little():
    for seed in range(8):
        poses = head_motion(Appearance.from_seed(seed), seed, TIMES_S)
        yaw = np.array([pose.yaw for pose in poses])
        assert np.abs(yaw).max() < 0.35
        assert np.abs(np.diff(yaw)).max() < 0.02  # rad a frame at 25 fps
        assert np.ptp([pose.x for pose in poses]) > 1


def test_eyes_blink_now_and_then():
    blink = np.array([pose.blink for pose in head_motion(Appearance.from_seed(1), 1, TIMES_S)])
    assert blink.max() > 0.8
    assert 0.8 < np.mean(blink < 0.1) < 1


def test_no_times_no_poses():
    assert head_motion(Appearance.from_seed(1), 1, np.zeros(0)) == []
