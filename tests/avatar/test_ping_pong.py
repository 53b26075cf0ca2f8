from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from inference.avatar.ping_pong import PingPongPosition
from inference.lip_sync.frame_spool import ping_pong_index


def test_the_order_matches_upstream(shared: Path):
    for case in json.loads((shared / "golden" / "pingpong.json").read_text()).values():
        n_frames = case["n_frames"]
        if n_frames > 1:  # upstream would read a frame that does not exist
            assert [ping_pong_index(step + 1, n_frames) for step in case["steps"]] == case["frame"]


def test_it_begins_with_frame_1_and_each_end_comes_once():
    assert [ping_pong_index(step + 1, 4) for step in range(9)] == [1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert [ping_pong_index(step + 1, 1) for step in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("n_frames", [1, 2, 5, 30])
def test_steps_over_all_frames_have_that_order(n_frames: int):
    position, seen = PingPongPosition(), []
    for _ in range(100):
        position = position.step(n_frames)
        seen.append(position.frame)
    assert seen == [ping_pong_index(step + 1, n_frames) for step in range(100)]


@pytest.mark.parametrize(
    "start",
    [
        PingPongPosition(0, 1),
        PingPongPosition(9, -1),
        PingPongPosition(5, 1),
        PingPongPosition(5, -1),
        PingPongPosition(19, 1),
    ],
)
def test_it_moves_into_a_range_and_stays_there(start: PingPongPosition):
    """From any start, one frame at a time, without jumps."""
    position, seen = start, [start.frame]
    for _ in range(60):
        position = position.step_within(7, 10)
        seen.append(position.frame)
    assert all(abs(a - b) == 1 for a, b in pairwise(seen))
    assert set(seen[-20:]) == {7, 8, 9, 10}


def test_a_range_of_one_frame_stays_still():
    position = PingPongPosition(3, 1)
    for _ in range(5):
        position = position.step_within(5, 5)
    assert position.frame == 5
    assert position.step_within(5, 5).frame == 5
