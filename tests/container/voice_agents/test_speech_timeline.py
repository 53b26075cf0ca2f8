"""What was pushed, sent and played, in samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from container.voice_agents.speech_timeline import PlayedAudio, ReachedMarker, SpeechTimeline

FRAME = 4
SILENCE = np.zeros(FRAME, np.int16)


def ramp(first: int, last: int) -> np.ndarray:
    return np.arange(first, last, dtype=np.int16)


def played(items: Iterator[PlayedAudio | ReachedMarker]) -> list[object]:
    return [one.pcm.tolist() if isinstance(one, PlayedAudio) else one.marker for one in items]


@pytest.fixture
def timeline() -> SpeechTimeline:
    return SpeechTimeline(FRAME)


def test_frames_are_cut_at_the_end_of_an_utterance(timeline: SpeechTimeline):
    timeline.push(ramp(1, 7))
    timeline.end_utterance()
    timeline.add_marker("end")
    timeline.push(ramp(7, 9))
    assert played(timeline.take_played(ramp(1, 5), is_speaking=True)) == [[1, 2, 3, 4]]
    assert played(timeline.take_played(np.array([5, 6, 0, 0], np.int16), is_speaking=True)) == [[5, 6]]
    assert played(timeline.take_played(SILENCE, is_speaking=False)) == []
    assert played(timeline.take_markers()) == ["end"]
    assert timeline.n_pending == 2


def test_a_marker_precedes_the_audio_behind_it(timeline: SpeechTimeline):
    timeline.push(ramp(1, 5))
    timeline.end_utterance()
    timeline.add_marker("end")
    timeline.push(ramp(5, 9))
    # Two frames in one message, as a slow client gets them.
    assert played(timeline.take_played(ramp(1, 9), is_speaking=True)) == [[1, 2, 3, 4], "end", [5, 6, 7, 8]]
    assert timeline.is_silent


def test_silence_between_dropped_frames_is_not_speech(timeline: SpeechTimeline):
    timeline.push(ramp(1, 9))
    received = np.concatenate([ramp(1, 5), SILENCE, ramp(5, 9)])
    assert played(timeline.take_played(received, is_speaking=False)) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_audio_is_sent_as_far_ahead_as_allowed(timeline: SpeechTimeline):
    timeline.push(ramp(0, 10))
    timeline.end_utterance()
    timeline.push(ramp(10, 14))

    def sent(max_ahead: int) -> list[list[int] | None]:
        return [None if pcm is None else pcm.tolist() for pcm in timeline.take_unsent(max_ahead)]

    assert sent(8) == [list(range(8))]
    assert sent(8) == []
    assert played(timeline.take_played(ramp(0, 4), is_speaking=True)) == [[0, 1, 2, 3]]
    assert sent(8) == [[8, 9], None, [10, 11]]
    assert sent(100) == [[12, 13]]


def test_another_session_gets_all_that_was_not_played(timeline: SpeechTimeline):
    timeline.push(ramp(0, 6))
    timeline.end_utterance()
    timeline.push(ramp(6, 8))
    assert len(list(timeline.take_unsent(100))) == 3
    assert played(timeline.take_played(ramp(0, 4), is_speaking=True)) == [[0, 1, 2, 3]]
    timeline.rewind()
    assert [None if pcm is None else pcm.tolist() for pcm in timeline.take_unsent(100)] == [[4, 5], None, [6, 7]]


@pytest.mark.parametrize(("n_received", "sent"), [(1, [[4, 5], None, [6, 7]]), (2, [[6, 7]]), (3, [])])
def test_another_session_does_not_speak_a_frame_that_waits_to_be_played(
    timeline: SpeechTimeline, n_received: int, sent: list[list[int] | None]
):
    timeline.push(ramp(0, 6))
    timeline.end_utterance()
    timeline.push(ramp(6, 8))
    timeline.rewind(n_received)
    assert [None if pcm is None else pcm.tolist() for pcm in timeline.take_unsent(100)] == sent
    assert played(timeline.take_played(ramp(0, 4), is_speaking=True)) == [[0, 1, 2, 3]]  # they are played all the same


def test_clearing_returns_the_markers(timeline: SpeechTimeline):
    timeline.push(ramp(1, 9))
    timeline.add_marker("a")
    timeline.add_marker("b")
    assert timeline.clear() == ["a", "b"]
    assert timeline.is_silent
    assert list(timeline.take_unsent(100)) == []
    assert not timeline.is_open
