from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from inference.audio.features import LOOK_AHEAD_MS
from inference.avatar import AvatarPackage, AvatarSession, TimedFrame
from inference.errors import InvalidRequest, Overloaded, WeightsNotFound
from inference.media.frame_order import ping_pong_index


def speak(session: AvatarSession, pcm: np.ndarray, pieces: Sequence[int]) -> list[TimedFrame]:
    """Push in pieces of those sizes, over and over, taking what is ready behind each."""
    frames, at, i = [], 0, 0
    while at < len(pcm):
        session.push_audio(pcm[at : at + pieces[i % len(pieces)]])
        at += pieces[i % len(pieces)]
        i += 1
        frames += session.frames()
    session.flush()
    return [*frames, *session.frames()]


def assert_same(one: Sequence[TimedFrame], other: Sequence[TimedFrame]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.frame, a.background, a.box, a.is_speaking) == (b.frame, b.background, b.box, b.is_speaking)
        np.testing.assert_array_equal(a.patch, b.patch)
        np.testing.assert_array_equal(a.pcm, b.pcm)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_pieces_make_no_difference(package: AvatarPackage, speech: np.ndarray, rate: int):
    pcm = speech[: rate // 2]  # half a second at that rate, whatever it says
    whole = speak(package.session(rate), pcm, [len(pcm)])
    assert_same(speak(package.session(rate), pcm, [rate // 100]), whole)  # 10 ms
    assert_same(speak(package.session(rate), pcm, [1, 7, 333, 2048]), whole)


def test_frames_carry_the_sound_that_belongs_to_them(package: AvatarPackage, speech: np.ndarray):
    """By hand: 0.5 s and 100 samples are 12.656 frames, so 13, the last one padded with zeros."""
    pcm = speech[:8100]
    frames = speak(package.session(), pcm, [1000])
    assert len(frames) == 13
    assert all(len(frame.pcm) == 640 and frame.pcm.dtype == np.int16 for frame in frames)
    together = np.concatenate([frame.pcm for frame in frames])
    np.testing.assert_array_equal(together[:8100], pcm)
    assert not together[8100:].any()
    assert [frame.pts_ms for frame in frames] == [40 * i for i in range(13)]
    assert [frame.frame for frame in frames] == list(range(13))
    assert all(frame.is_speaking for frame in frames)


def test_a_rate_that_25_does_not_divide_does_not_drift(package: AvatarPackage):
    rate = 11_024  # 440.96 samples a frame
    pcm = np.arange(rate, dtype=np.int16)
    frames = speak(package.session(rate), pcm, [997])
    assert len(frames) == 25
    assert {len(frame.pcm) for frame in frames} == {440, 441}
    np.testing.assert_array_equal(np.concatenate([frame.pcm for frame in frames]), pcm)


def test_patches_lie_on_upstreams_frames(package: AvatarPackage, speech: np.ndarray):
    for i, frame in enumerate(speak(package.session(), speech[:6400], [6400])):
        assert frame.background == ping_pong_index(i + 1, package.n_frames)
        assert frame.box == package.box(frame.background)
        assert frame.patch.shape == (frame.box.height, frame.box.width, 3)
        whole = package.compose_frame(frame)
        rows, columns = slice(frame.box.top, frame.box.bottom), slice(frame.box.left, frame.box.right)
        np.testing.assert_array_equal(whole[rows, columns], frame.patch)
        whole = whole.copy()
        whole[rows, columns] = package.background(frame.background)[rows, columns]
        np.testing.assert_array_equal(whole, package.background(frame.background))


def test_what_is_said_shows(package: AvatarPackage, speech: np.ndarray):
    """New speech is really heard: other sound, other mouths, from just where it differs."""
    other = speech[:16000].copy()
    other[8000:] = 0
    one, two = (speak(package.session(), pcm, [3200]) for pcm in (speech[:16000], other))
    differs = [not np.array_equal(a.patch, b.patch) for a, b in zip(one, two, strict=True)]
    first = differs.index(True)
    # Sample 8000 lies in frame 12; frame i hears up to i * 40 + 452 ms, so that frame 2 (532 ms) may be first.
    assert first == 2
    assert all(differs[5:])


def test_each_frame_hears_sixteen_rows_of_its_own(package: AvatarPackage, speech: np.ndarray):
    """Not one row sixteen times over: the rows that reach the network differ from one another, and move on."""
    session = package.session()
    session.push_audio(speech[:16000])
    pending = session._next_pending(0)
    assert pending is not None
    rows = [package.encode_audio(window) for window in pending.windows]
    assert len(rows) == 16
    assert len({row.tobytes() for row in rows}) > 8


def test_the_first_frame_needs_no_more_than_the_look_ahead(package: AvatarPackage, speech: np.ndarray):
    n_needed = int(LOOK_AHEAD_MS * 16)
    session = package.session()
    session.push_audio(speech[: n_needed - 320])
    early = len(list(session.frames()))
    session = package.session()
    session.push_audio(speech[:n_needed])
    assert len(list(session.frames())) == max(early, 1) == 1
    for i in range(1, 20):  # and each later one no more than that beyond its own time
        session.push_audio(speech[n_needed + 640 * (i - 1) : n_needed + 640 * i])
        assert [frame.frame for frame in session.frames()] == [i]


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_another_rate_needs_two_milliseconds_more_at_most(package: AvatarPackage, rate: int):
    session = package.session(rate)
    session.push_audio(np.ones(round((LOOK_AHEAD_MS + 2) / 1000 * rate), np.int16))
    assert len(list(session.frames())) == 1


def test_the_rate_is_heeded(package: AvatarPackage, speech: np.ndarray):
    """The same voice at 24 kHz paints nearly the same mouths; taken for 16 kHz it would be another voice."""
    t = np.arange(16000) / 16000
    tone = (8000 * np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * 3 * t) ** 2).astype(np.int16)
    t = np.arange(24000) / 24000
    fine = (8000 * np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * 3 * t) ** 2).astype(np.int16)
    right = speak(package.session(), tone, [16000])
    at_24 = speak(package.session(24_000), fine, [24000])
    assert len(right) == len(at_24) == 25
    apart = np.mean([np.abs(a.patch.astype(int) - b.patch).mean() for a, b in zip(right, at_24, strict=True)])
    wrong = speak(package.session(), fine, [24000])
    mistaken = np.mean([np.abs(a.patch.astype(int) - b.patch).mean() for a, b in zip(right, wrong, strict=False)])
    assert apart < 0.2 * mistaken


def test_silence_shuts_the_mouth_and_runs_on(package: AvatarPackage):
    session = package.session(24_000)
    frames = [session.idle() for _ in range(40)]
    assert [frame.frame for frame in frames] == list(range(40))
    assert not any(frame.is_speaking or frame.pcm.any() for frame in frames)
    assert all(len(frame.pcm) == 960 for frame in frames)
    steps = np.diff([frame.background for frame in frames])
    assert (np.abs(steps) == 1).all()  # the head never jumps
    idle = package.idle
    assert idle.is_shut
    settled = frames[-1]
    assert idle.first <= settled.background <= idle.last
    np.testing.assert_array_equal(package.compose_frame(settled), package.background(settled.background))


def test_speech_and_silence_share_one_count(package: AvatarPackage, speech: np.ndarray):
    session = package.session()
    frames = [session.idle(), session.idle()]
    session.push_audio(speech[:3200])
    session.flush()
    spoken = session.frames()
    frames += [next(spoken), next(spoken), session.idle(), next(spoken)]
    frames += spoken
    frames += [session.idle()]
    assert [frame.frame for frame in frames] == list(range(9))
    assert [frame.is_speaking for frame in frames] == [False] * 2 + [True] * 2 + [False] + [True] * 3 + [False]
    assert (np.abs(np.diff([frame.background for frame in frames])) == 1).all()
    assert not session.has_speech


def test_an_utterance_follows_another(package: AvatarPackage, speech: np.ndarray):
    """Speech behind a flush is heard with silence before it, as if it were the first."""
    session = package.session()
    for _ in range(2):
        session.push_audio(speech[:3300])
        session.flush()
        session.flush()  # there is nothing more to end
    frames = list(session.frames())
    assert len(frames) == 12
    np.testing.assert_array_equal(frames[0].pcm, frames[6].pcm)
    alone = package.session()
    for _ in range(6):
        alone.idle()
    assert session.queued_s == 0


def test_an_interrupt_drops_everything_at_once(package: AvatarPackage, speech: np.ndarray):
    session = package.session()
    session.push_audio(speech)
    running = session.frames()
    first = next(running)
    session.interrupt()
    assert list(running) == []  # whoever takes frames of old speech gets no more of it
    assert list(session.frames()) == []
    assert not session.has_speech
    quiet = session.idle()
    assert (first.generation, quiet.generation, quiet.frame) == (0, 1, 1)
    session.push_audio(speech[:640])
    session.flush()
    (spoken,) = session.frames()
    assert (spoken.generation, spoken.frame) == (1, 2)
    np.testing.assert_array_equal(spoken.pcm, speech[:640])


def test_an_interrupt_catches_the_frame_that_is_being_made(
    package: AvatarPackage, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    session = package.session()
    session.push_audio(speech)
    render = package.render

    def render_while_interrupted(i: int, features: np.ndarray) -> np.ndarray:
        session.interrupt()  # does not wait for the network
        return render(i, features)

    monkeypatch.setattr(package, "render", render_while_interrupted)
    assert list(session.frames()) == []
    assert session.idle().frame == 0


def test_too_much_speech_is_refused_and_none_of_it_taken(package: AvatarPackage, speech: np.ndarray):
    session = package.session(max_queued_s=1.0)
    session.push_audio(speech[:16000])
    with pytest.raises(Overloaded, match=r"1\.0 s of speech queued and 0\.1 s pushed; at most 1 s expected"):
        session.push_audio(speech[:1600])
    session.flush()
    assert len(list(session.frames())) == 25
    session.push_audio(speech[:16000])  # there is room again
    assert session.queued_s == 1.0


def test_endless_scraps_are_refused(package: AvatarPackage):
    session, scrap = package.session(), np.ones(1, np.int16)
    for _ in range(256):
        session.push_audio(scrap)
        session.flush()
    with pytest.raises(Overloaded, match="256 utterances are queued"):
        session.push_audio(scrap)


@pytest.mark.parametrize(
    "pcm", [np.zeros(4, np.float32), np.zeros((2, 2), np.int16), b"\0\0", [0, 1], np.zeros(4, ">i2").astype("<u2")]
)
def test_other_arrays_are_refused(package: AvatarPackage, pcm: object):
    with pytest.raises(InvalidRequest, match="expected an int16 array of one axis"):
        package.session().push_audio(pcm)


@pytest.mark.parametrize("rate", [0, 3999, 192_001, True, 16_000.0, "16000"])
def test_rates_of_no_speech_are_refused(package: AvatarPackage, rate: object):
    with pytest.raises(InvalidRequest, match="expected 4000 to 192000 samples a second"):
        package.session(rate)


def test_nothing_at_all_is_nothing(package: AvatarPackage):
    session = package.session()
    session.push_audio(np.zeros(0, np.int16))
    session.flush()
    assert list(session.frames()) == []
    assert not session.has_speech


def test_a_closed_session_says_so(package: AvatarPackage, speech: np.ndarray):
    session = package.session()
    session.push_audio(speech)
    running = session.frames()
    session.close()
    session.close()
    assert list(running) == []
    for use in (session.flush, session.interrupt, session.idle, lambda: session.push_audio(speech)):
        with pytest.raises(InvalidRequest, match="closed"):
            use()


def test_sessions_in_many_threads_share_one_network(package: AvatarPackage, speech: np.ndarray):
    """Each says what it would say alone."""
    alone = [speak(package.session(), speech[at : at + 4000], [500]) for at in (0, 4000, 8000)]
    together: dict[int, list[TimedFrame]] = {}

    def say(i: int) -> None:
        together[i] = speak(package.session(), speech[4000 * i : 4000 * (i + 1)], [500])

    threads = [threading.Thread(target=say, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, frames in enumerate(alone):
        assert_same(together[i], frames)


def test_without_an_ear_there_is_no_session(package: AvatarPackage, monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    deaf = AvatarPackage(
        package._manifest, replace(package._parts, audio_encoder=None, missing_encoder_message="it has no ear")
    )
    assert not deaf.accepts_audio
    with pytest.raises(WeightsNotFound, match="it has no ear"):
        deaf.session()
    with pytest.raises(WeightsNotFound, match="it has no ear"):
        deaf.encode_audio(np.ones(3801, np.int16))
