from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from support.timed_media import make_click, make_timed_media
from support.video_files import numbered_frames, read_number

from inference.errors import MediaTooLarge
from inference.media import MediaLimits, open_media
from inference.media.audio import read_audio
from inference.media.audio_clock import MAX_GAP_S, AudioClock, PlacedAudio

FRAME_S = 0.02
N_SAMPLES = 960  # at 48 kHz
MS = Fraction(1, 1000)


def make_frame(at_ms: float | None) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, N_SAMPLES), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.time_base = 48_000, MS
    frame.pts = None if at_ms is None else round(at_ms)
    return frame


def place(
    stamps_ms: Sequence[float | None], origin_s: float | None = None, max_silence_s: float = np.inf
) -> tuple[list[float], AudioClock]:
    """Return where each frame of 20 ms starts, in milliseconds from the start of the file."""
    clock = AudioClock(origin_s, max_silence_s)
    starts, end_s = [], 0.0
    for placed in clock.place(make_frame(stamp) for stamp in stamps_ms):
        assert isinstance(placed, PlacedAudio)
        start_s = end_s if placed.at_s is None else placed.at_s
        starts.append(round(start_s * 1000, 3))
        end_s = start_s + FRAME_S
    return starts, clock


def steps(start_ms: float, n_frames: int) -> list[float]:
    return [start_ms + 20 * i for i in range(n_frames)]


def test_contiguous_frames_stay_as_they_are():
    clock = AudioClock(None, np.inf)
    assert all(placed.at_s is None for placed in clock.place(make_frame(ms) for ms in steps(5000, 50)))
    assert clock.elapsed_s == pytest.approx(1.0)


def test_a_gap_is_silence():
    starts, clock = place([*steps(0, 10), *steps(1200, 30)])
    assert starts == [*steps(0, 10), *steps(1200, 30)]
    assert clock.elapsed_s == pytest.approx(1.8)


def test_many_short_gaps_do_not_shift_what_follows():
    """Discontinuous transmission: one frame of 20 ms every 400 ms."""
    stamps = [400.0 * i for i in range(20)] + steps(8000, 30)
    assert place(stamps)[0] == stamps


def test_single_lost_packets_add_up_to_a_gap():
    stamps = steps(0, 60)
    del stamps[20], stamps[30]
    starts, _ = place(stamps)
    assert max(abs(found - stamp) for found, stamp in zip(starts, stamps, strict=True)) <= 20
    assert starts[-1] == stamps[-1]


def test_jitter_of_a_live_recorder_changes_nothing():
    rng = random.Random(3)
    stamps = [ms + rng.uniform(-60, 60) for ms in steps(100, 200)]
    stamps[0] = 100
    starts, _ = place(stamps)
    assert starts[:185] == steps(0, 185)
    assert starts[-1] == pytest.approx(20 * 199, abs=60)  # the last ones have nothing after them to compare with


def test_a_gap_is_found_in_spite_of_jitter():
    rng = random.Random(4)
    stamps = [ms + rng.uniform(-9, 9) for ms in [*steps(0, 50), *steps(2000, 50)]]
    starts, _ = place(stamps)
    assert starts[:50] == steps(0, 50)
    assert starts[50] == pytest.approx(2000, abs=20)
    assert starts[99] - starts[50] == pytest.approx(20 * 49)


def test_an_overlap_is_cut():
    starts, clock = place([*steps(0, 20), *steps(320, 30)])
    assert starts == [*steps(0, 20), *steps(320, 30)]  # what lies before 400 ms is left out by the converter
    assert clock.elapsed_s == pytest.approx(0.92)


def test_a_clock_that_starts_again_continues():
    assert place([*steps(0, 50), *steps(0, 50)])[0] == steps(0, 100)
    gap_in_second = [*steps(0, 50), *steps(0, 20), *steps(600, 20)]
    assert place(gap_in_second)[0] == [*steps(0, 70), *steps(1600, 20)]


@pytest.mark.parametrize("jump_s", [MAX_GAP_S + 1, 95_443])
def test_a_jump_of_the_clock_is_closed_and_reported(jump_s: float):
    starts, clock = place([*steps(0, 50), *steps(1000 + 1000 * jump_s, 50)])
    assert starts == steps(0, 100)
    assert clock.has_jumped
    assert not place([*steps(0, 50), *steps(1000 + 1000 * MAX_GAP_S, 50)])[1].has_jumped


def test_gaps_are_limited_as_a_whole():
    stamps = [*steps(0, 20), *steps(1000, 20), *steps(2000, 20), *steps(3000, 20)]
    assert place(stamps, max_silence_s=1.8)[0] == stamps
    starts, clock = place(stamps, max_silence_s=1.3)
    assert starts == [*stamps[:60], *steps(2400, 20)]
    assert clock.has_jumped
    assert place(steps(800, 20), 0.0, max_silence_s=0.5)[0] == steps(0, 20)
    assert place(steps(0, 200), max_silence_s=0.0)[0] == steps(0, 200)


def test_gaps_are_limited_by_the_size_of_the_file(monkeypatch: pytest.MonkeyPatch):
    gaps = make_timed_media("matroska", numbered_frames(50), make_click(2.0, 1.0), jumps_s=[(1.0, 30)])
    assert len(read_audio(gaps, 16_000)) == pytest.approx(32 * 16_000, abs=500)
    monkeypatch.setattr("inference.media.limits.FREE_SILENCE_S", 5.0)
    n_s_per_byte = 25 / len(gaps)
    assert len(read_audio(gaps, 16_000, MediaLimits(max_silence_s_per_byte=1.1 * n_s_per_byte))) > 30 * 16_000
    closed = read_audio(gaps, 16_000, MediaLimits(max_silence_s_per_byte=0.9 * n_s_per_byte))
    assert len(closed) == pytest.approx(2 * 16_000, abs=500)


def test_frames_without_timestamps_follow_one_another():
    assert place([None] * 10)[0] == steps(0, 10)
    assert place([*steps(7, 10), *[None] * 10], 0.0)[0] == [*steps(7, 10), *steps(207, 10)]


def test_time_counts_from_the_start_of_the_file():
    assert place(steps(800, 30), 0.0)[0] == steps(800, 30)
    assert place(steps(1480, 30), 1.4)[0] == steps(80, 30)
    assert place(steps(-21, 30), 0.0)[0] == steps(-21, 30)  # priming
    assert place(steps(1000 * (MAX_GAP_S + 5), 30), 0.0)[0] == steps(0, 30)


def test_a_small_shift_of_the_start_is_kept():
    assert place(steps(7, 10), 0.0)[0] == steps(7, 10)
    assert place(steps(7, 10))[0] == steps(0, 10)


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm"])
def test_the_first_frame_is_shown_from_the_start_of_earlier_audio(container: str):
    frames = numbered_frames(50)
    late = make_timed_media(container, frames, make_click(3.0, 1.0), video_start_s=0.8)
    with open_media(late) as media:
        shown = [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames]
    assert shown == [0] * 20 + list(range(50))
    with open_media(make_timed_media(container, frames, make_click(3.0, 1.0), video_start_s=0.03)) as media:
        assert [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames] == list(range(50))


def test_clocks_that_have_nothing_to_do_with_each_other_both_start_at_zero():
    apart = make_timed_media("matroska", numbered_frames(50), make_click(2.0, 1.0), video_start_s=5000)
    with open_media(apart) as media:
        assert [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames] == list(range(50))
    assert len(read_audio(apart, 16_000)) == pytest.approx(2 * 16_000, abs=500)


def test_the_held_frame_counts_towards_the_limit():
    late = make_timed_media("matroska", numbered_frames(50), make_click(3.0, 1.0), video_start_s=1.5)
    with open_media(late, MediaLimits(max_duration_s=3)) as media, pytest.raises(MediaTooLarge, match="lasts over 3 s"):
        list(media.read_clips(25))
