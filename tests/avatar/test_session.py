from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from inference.audio.avatar_features import look_ahead_ms
from inference.avatar import AvatarPackage, AvatarSession, TimedFrame
from inference.errors import InvalidRequest, Overloaded, WeightsNotFound
from inference.lip_sync.frame_spool import ping_pong_index

LOOK_AHEAD_MS = look_ahead_ms()  # of published avatars


def speak(session: AvatarSession, pcm: np.ndarray, pieces: Sequence[int]) -> list[TimedFrame]:
    """Push pieces of these sizes in turn, and take the frames that are ready after each."""
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
def test_chunk_sizes_make_no_difference(package: AvatarPackage, speech: np.ndarray, rate: int):
    pcm = speech[: rate // 2]  # half a second at that rate
    whole = speak(package.session(rate), pcm, [len(pcm)])
    assert_same(speak(package.session(rate), pcm, [rate // 100]), whole)  # 10 ms
    assert_same(speak(package.session(rate), pcm, [1, 7, 333, 2048]), whole)


def test_frames_carry_their_own_audio(package: AvatarPackage, speech: np.ndarray):
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


def test_a_rate_not_divisible_by_25_does_not_drift(package: AvatarPackage):
    rate = 11_024  # 440.96 samples a frame
    pcm = np.arange(rate, dtype=np.int16)
    frames = speak(package.session(rate), pcm, [997])
    assert len(frames) == 25
    assert {len(frame.pcm) for frame in frames} == {440, 441}
    np.testing.assert_array_equal(np.concatenate([frame.pcm for frame in frames]), pcm)


def test_backgrounds_follow_upstreams_order(package: AvatarPackage, speech: np.ndarray):
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


def test_the_mouth_depends_on_the_audio(package: AvatarPackage, speech: np.ndarray):
    """Other audio gives other mouths, from exactly the first frame that depends on it."""
    other = speech[:16000].copy()
    other[8000:] = 0
    one, two = (speak(package.session(), pcm, [3200]) for pcm in (speech[:16000], other))
    differs = [not np.array_equal(a.patch, b.patch) for a, b in zip(one, two, strict=True)]
    first = differs.index(True)
    # Sample 8000 is in frame 12; frame i depends on audio up to i * 40 + 452 ms, so frame 2 (532 ms) may differ first.
    assert first == 2
    assert all(differs[5:])


def test_each_frame_gets_sixteen_rows_of_its_own(package: AvatarPackage, speech: np.ndarray):
    """The rows that reach the network differ from one another, and advance."""
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
    for i in range(1, 20):  # each later frame needs no more beyond its own time
        session.push_audio(speech[n_needed + 640 * (i - 1) : n_needed + 640 * i])
        assert [frame.frame for frame in session.frames()] == [i]


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_another_rate_needs_at_most_two_milliseconds_more(package: AvatarPackage, rate: int):
    session = package.session(rate)
    session.push_audio(np.ones(round((LOOK_AHEAD_MS + 2) / 1000 * rate), np.int16))
    assert len(list(session.frames())) == 1


def looking_ahead(package: AvatarPackage, n_windows: int) -> AvatarPackage:
    """Return the same avatar with another look-ahead in its manifest."""
    return AvatarPackage(package._manifest.model_copy(update={"look_ahead_windows": n_windows}), package._parts)


def test_the_manifest_states_the_look_ahead(package: AvatarPackage, speech: np.ndarray):
    """By hand: one window ahead, a frame needs 252.5 ms, and the last of its rows is that of window i + 1."""
    near, n_needed = looking_ahead(package, 1), int(252.5 * 16)
    session = near.session()
    session.push_audio(speech[: n_needed - 200])
    assert list(session.frames()) == []
    session.push_audio(speech[n_needed - 200 : n_needed])
    assert len(list(session.frames())) == 1
    one, other = (shared.session() for shared in (near, package))
    for each in (one, other):
        each.push_audio(speech[:16000])
        each.flush()
    shifted, published = ([each.plan().features for _ in range(12)] for each in (one, other))
    for frame in range(7):  # the rows of frame i are those that published avatars have five frames before
        np.testing.assert_array_equal(shifted[frame + 5], published[frame])


def test_chunk_sizes_make_no_difference_with_another_look_ahead(package: AvatarPackage, speech: np.ndarray):
    near, pcm = looking_ahead(package, 1), speech[:8000]
    whole = speak(near.session(), pcm, [len(pcm)])
    assert_same(speak(near.session(), pcm, [1, 7, 333, 2048]), whole)


def test_a_session_may_wait_for_more_audio(package: AvatarPackage, speech: np.ndarray):
    session = AvatarSession(looking_ahead(package, 1), wait_ms=312.5)
    session.push_audio(speech[:4999])
    assert list(session.frames()) == []
    session.push_audio(speech[4999:5000])
    assert len(list(session.frames())) == 1


def test_the_sample_rate_is_used(package: AvatarPackage, speech: np.ndarray):
    """The same speech at 24 kHz gives nearly the same mouths; taken for 16 kHz it would differ."""
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


def test_silence_closes_the_mouth_and_motion_continues(package: AvatarPackage):
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


def test_utterances_follow_one_another(package: AvatarPackage, speech: np.ndarray):
    """Speech after a flush starts after silence, like the first utterance."""
    session = package.session()
    for _ in range(2):
        session.push_audio(speech[:3300])
        session.flush()
        session.flush()  # no open utterance
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
    assert list(running) == []  # an iterator over old speech ends
    assert list(session.frames()) == []
    assert not session.has_speech
    quiet = session.idle()
    assert (first.generation, quiet.generation, quiet.frame) == (0, 1, 1)
    session.push_audio(speech[:640])
    session.flush()
    (spoken,) = session.frames()
    assert (spoken.generation, spoken.frame) == (1, 2)
    np.testing.assert_array_equal(spoken.pcm, speech[:640])


def test_frames_may_be_planned_and_rendered_later(package: AvatarPackage, speech: np.ndarray):
    one, other = package.session(), package.session()
    for session in (one, other):
        session.push_audio(speech)
        session.flush()
        assert session.is_ready
    planned = [one.plan() for _ in range(len(speech) // 640 + 1)]
    assert (planned[-1].features is None, one.is_ready) == (True, False)
    assert_same([one.render(each) for each in planned], [*other.frames(), other.idle()])


def test_an_interrupt_takes_back_planned_frames(package: AvatarPackage, speech: np.ndarray):
    session = package.session()
    session.push_audio(speech)
    planned = [session.plan().timed for _ in range(5)]
    session.interrupt(2)
    assert session.n_frames == 2
    quiet = session.plan().timed
    assert (quiet.frame, quiet.generation, quiet.is_speaking) == (2, 1, False)
    assert abs(quiet.background - planned[1].background) == 1  # the head goes on from the last frame that is shown
    session.interrupt()
    assert session.plan().timed.frame == 3


def test_an_interrupt_drops_the_frame_being_rendered(
    package: AvatarPackage, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    session = package.session()
    session.push_audio(speech)
    render = package.render

    def render_while_interrupted(i: int, features: np.ndarray) -> np.ndarray:
        session.interrupt()  # without waiting for the network
        return render(i, features)

    monkeypatch.setattr(package, "render", render_while_interrupted)
    assert list(session.frames()) == []
    assert session.idle().frame == 0


def test_an_interrupt_spares_the_networks_the_rest_of_a_frame(
    package: AvatarPackage, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    session = package.session()
    session.push_audio(speech)
    encode_audio, calls = package.encode_audio, []

    def encode_while_interrupted(window: np.ndarray) -> np.ndarray:
        calls.append("encode")
        if len(calls) == 3:  # of the 16 windows of the first frame
            session.interrupt()
        return encode_audio(window)

    monkeypatch.setattr(package, "encode_audio", encode_while_interrupted)
    monkeypatch.setattr(package, "render", lambda *_: calls.append("render"))
    assert list(session.frames()) == []
    assert calls == ["encode"] * 3


def test_too_much_speech_is_rejected_as_a_whole(package: AvatarPackage, speech: np.ndarray):
    session = package.session(max_queued_s=1.0)
    session.push_audio(speech[:16000])
    with pytest.raises(Overloaded, match=r"1\.0 s of speech queued and 0\.1 s pushed; at most 1 s expected"):
        session.push_audio(speech[:1600])
    session.flush()
    assert len(list(session.frames())) == 25
    session.push_audio(speech[:16000])  # the queue has room again
    assert session.queued_s == 1.0


def test_too_many_utterances_are_rejected(package: AvatarPackage):
    session, scrap = package.session(), np.ones(1, np.int16)
    for _ in range(256):
        session.push_audio(scrap)
        session.flush()
    with pytest.raises(Overloaded, match="256 utterances are queued"):
        session.push_audio(scrap)


@pytest.mark.parametrize(
    "pcm", [np.zeros(4, np.float32), np.zeros((2, 2), np.int16), b"\0\0", [0, 1], np.zeros(4, ">i2").astype("<u2")]
)
def test_other_arrays_are_rejected(package: AvatarPackage, pcm: object):
    with pytest.raises(InvalidRequest, match="expected an int16 array of one axis"):
        package.session().push_audio(pcm)


@pytest.mark.parametrize("rate", [0, 3999, 192_001, True, 16_000.0, "16000"])
def test_unsupported_rates_are_rejected(package: AvatarPackage, rate: object):
    with pytest.raises(InvalidRequest, match="expected 4000 to 192000 samples a second"):
        package.session(rate)


def test_empty_audio_gives_no_frames(package: AvatarPackage):
    session = package.session()
    session.push_audio(np.zeros(0, np.int16))
    session.flush()
    assert list(session.frames()) == []
    assert not session.has_speech


def test_a_closed_session_raises(package: AvatarPackage, speech: np.ndarray):
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
    """Each session generates the same frames as it would by itself."""
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


def test_there_is_no_session_without_an_audio_encoder(package: AvatarPackage, monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    deaf = AvatarPackage(
        package._manifest, replace(package._parts, audio_encoder=None, missing_encoder_message="no audio encoder")
    )
    assert not deaf.accepts_audio
    with pytest.raises(WeightsNotFound, match="no audio encoder"):
        deaf.session()
    with pytest.raises(WeightsNotFound, match="no audio encoder"):
        deaf.encode_audio(np.ones(3801, np.int16))
