from fractions import Fraction

import numpy as np
import pytest

from inference.media.frames import CHUNK_BYTES, TimedItem, group_into_clips, resample_to_rate


def timed(*starts: Fraction | float, last_for: Fraction | float) -> list[TimedItem[int]]:
    edges = [Fraction(s).limit_denominator(90000) for s in starts]
    return [TimedItem(start, Fraction(last_for).limit_denominator(90000), i) for i, start in enumerate(edges)]


def test_the_same_rate_passes_every_frame_once():
    assert list(resample_to_rate(timed(0, 0.04, 0.08, 0.12, last_for=0.04), Fraction(25))) == [0, 1, 2, 3]


def test_time_counts_from_the_first_frame():
    assert list(resample_to_rate(timed(7.5, 7.54, 7.58, last_for=0.04), Fraction(25))) == [0, 1, 2]


def test_a_tick_takes_the_nearest_frame():
    # at 10 fps the ticks are 0, .1, .2; frames at .04 and .13 are .06 and .03 away from .1
    assert list(resample_to_rate(timed(0, 0.04, 0.13, 0.21, last_for=0.09), Fraction(10))) == [0, 2, 3]


def test_a_long_frame_is_shown_for_as_long_as_it_lasts():
    assert list(resample_to_rate(timed(0, 0.4, last_for=0.2), Fraction(10))) == [0, 0, 0, 1, 1, 1]


def test_a_single_frame_gives_at_least_one():
    assert list(resample_to_rate(timed(3, last_for=0.001), Fraction(25))) == [0]


def test_nothing_gives_nothing():
    assert list(resample_to_rate([], Fraction(25))) == []


@pytest.mark.parametrize("fps", ["60", "30", "24000/1001", "30000/1001", "50", "12", "10", "120", "29"])
def test_three_seconds_at_any_rate_give_75_frames(fps: str):
    rate = Fraction(fps)
    n = round(3 * rate)
    frames = [TimedItem(i / rate, 1 / rate, i / rate) for i in range(n)]
    shown = list(resample_to_rate(frames, Fraction(25)))
    assert len(shown) == 75
    late = [abs(shown_at - Fraction(tick, 25)) for tick, shown_at in enumerate(shown)]
    assert max(late) <= max(1 / rate / 2, 1 / rate - Fraction(1, 25), Fraction(75, 25) - shown[-1])


def test_chunks_hold_25_small_frames():
    frames = [np.zeros((4, 4, 3), np.uint8)] * 60
    clips = list(group_into_clips(frames, 25.0))
    assert [len(clip.frames) for clip in clips] == [25, 25, 10]
    assert clips[0].fps == 25.0


def test_chunks_hold_few_large_frames():
    frame = np.zeros((CHUNK_BYTES // 3000 + 1, 1000, 3), np.uint8)
    assert [len(clip.frames) for clip in group_into_clips([frame] * 3, 25.0)] == [1, 1, 1]
