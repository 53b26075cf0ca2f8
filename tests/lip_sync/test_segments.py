"""Segments: parts of a video that speak, each with an audio of its own."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from support.small_wav2lip import RATE, as_wav
from support.synthetic_frames import talk
from support.timed_media import make_timed_media
from support.video_files import make_image, make_video

from inference.audio.mel import SILENCE
from inference.errors import InvalidRequest
from inference.lip_sync import PARITY, LipSyncer, SyncOptions, SyncSegment
from inference.lip_sync.audio_inputs import SpokenAudio
from inference.lip_sync.audio_tracks import SplicedTrack, TrackPart, common_format, convert_spool
from inference.lip_sync.segment_timeline import SegmentTimeline
from inference.lip_sync.segments import PlacedSegment, place_segments
from inference.media import open_media
from inference.media.audio_convert import AudioFormat
from inference.media.audio_spool import AudioSpool, spool_audio
from inference.media.encode import AudioBuffer
from inference.media.video import VideoInfo

FPS = Fraction(25)
N_FRAMES = 20
DURATIONS_S = {0: Fraction(1), 1: Fraction(1, 2)}
VIDEO = VideoInfo("mp4", "h264", 64, 64, 25.0, 0.8, False)


def tone(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (12_000 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


@pytest.fixture(scope="module")
def tone_video() -> bytes:
    """Return a video of 20 frames with a track of its own: a tone of 400 Hz."""
    return make_timed_media("mp4", talk(N_FRAMES), tone(400, N_FRAMES / 25, 48_000)[None])


def frames_of(source: bytes) -> np.ndarray:
    with open_media(source) as media:
        return np.stack([frame for clip in media.read_clips(25) for frame in clip.frames]).astype(int)


def changed_frames(video: bytes, source: bytes) -> list[int]:
    """Return the frames whose mouth was generated: random weights change it much."""
    change = (np.abs(frames_of(video) - frames_of(source)).max(axis=3) > 60).sum(axis=(1, 2))
    return np.flatnonzero(change > 500).tolist()


def pitches(video: bytes, n_frames: int) -> list[int]:
    """Return the strongest frequency during each frame, in hundreds of Hz; 0 if it is silent."""
    with spool_audio(video) as spool:
        samples, rate = spool.read(0, len(spool))[:, 0].astype(float), spool.rate
    found = []
    for k in range(n_frames):
        piece = samples[k * rate // 25 : (k + 1) * rate // 25]
        spectrum = np.abs(np.fft.rfft(piece))
        found.append(0 if np.abs(piece).mean() < 500 else round(int(spectrum.argmax()) * 25 / 100))
    return found


def test_each_segment_speaks_its_own_audio(syncer: LipSyncer, tone_video: bytes):
    audios = [as_wav(tone(800, 1.0)), as_wav(np.concatenate([tone(1600, 0.2), tone(1200, 0.3)]))]
    segments = (SyncSegment(0.48, 0.64, audio=1, audio_start_s=0.2), SyncSegment(0.12, 0.28))
    result = syncer.sync(tone_video, audios, SyncOptions(segments=segments))
    video = result.outputs[0].video
    assert video is not None
    assert (result.num_frames, result.duration_s, result.frames_without_face) == (N_FRAMES, 0.8, 0)
    assert changed_frames(video, tone_video) == [*range(3, 7), *range(12, 16)]
    heard = pitches(video, N_FRAMES)
    inside = [k for k in range(1, N_FRAMES - 1) if k not in (3, 6, 7, 11, 12, 15, 16, 2)]  # AAC smears borders
    expected = [8 if 3 <= k < 7 else 12 if 12 <= k < 16 else 4 for k in inside]
    assert [heard[k] for k in inside] == expected


@pytest.mark.parametrize(
    ("mode", "spoken", "silent"),
    [(None, range(5, 15), range(10, 15)), ("silence", range(5, 15), range(10, 15)), ("cut_off", range(5, 10), ())],
)
def test_a_segment_longer_than_its_audio(syncer: LipSyncer, tone_video: bytes, mode, spoken, silent):
    options = SyncOptions(segments=(SyncSegment(0.2, 0.6),), sync_mode=mode)
    video = syncer.sync(tone_video, as_wav(tone(800, 0.2)), options).outputs[0].video
    assert video is not None
    assert changed_frames(video, tone_video) == list(spoken)
    heard = pitches(video, N_FRAMES)
    for k in range(11, 14):
        assert heard[k] == (0 if k in silent else 4)
    assert heard[7:9] == [8, 8]


def test_a_video_without_audio_is_silent_elsewhere(syncer: LipSyncer):
    source = make_video(talk(12))
    video = syncer.sync(source, as_wav(tone(800, 1)), SyncOptions(segments=(SyncSegment(0.24),))).outputs[0].video
    assert video is not None
    assert [pitches(video, 12)[k] for k in (0, 1, 2, 3, 8, 9)] == [0, 0, 0, 0, 8, 8]
    with av.open(io.BytesIO(video)) as container:
        audio = container.streams.audio[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(0.48, abs=1e-3)


def test_the_windows_of_a_segment_start_with_its_audio():
    spoken = SpokenAudio(AudioSpool(AudioFormat(RATE)), tone(800, 1))
    spoken.spool.append(spoken.samples)
    options = SyncOptions(segments=(SyncSegment(0.2, 0.4, audio_start_s=0.5),))
    timeline = SegmentTimeline(VIDEO, {0: spoken}, None, options, N_FRAMES)
    windows = list(timeline.windows())
    assert len(windows) == N_FRAMES
    assert [k for k, mel in enumerate(windows) if (mel > SILENCE).any()] == list(range(5, 10))
    assert (windows[5][:, :3] == SILENCE).all()  # the window starts a frame early, before the part
    assert (windows[6] > SILENCE).any(axis=0).all()


@pytest.mark.parametrize(
    ("segment", "placed"),
    [
        (SyncSegment(0), (0, 20)),
        (SyncSegment(0.12, 0.5), (3, 12)),
        (SyncSegment(0.78, 0.85), (20 - 1, 20)),
        (SyncSegment(0.4, audio=1, audio_start_s=0.1, audio_end_s=0.3), (10, 20)),
    ],
)
def test_segments_are_placed_on_frames(segment: SyncSegment, placed: tuple[int, int]):
    (found,) = place_segments([segment], N_FRAMES, FPS, DURATIONS_S, ends_with_audio=False)
    assert (found.first, found.end) == placed


def test_a_segment_ends_with_its_audio():
    segments = [SyncSegment(0.4, audio=1, audio_start_s=0.4), SyncSegment(0.0, 0.2, audio_end_s=0.01)]
    found = place_segments(segments, N_FRAMES, FPS, DURATIONS_S, ends_with_audio=True)
    assert [(one.first, one.end, one.audio) for one in found] == [(0, 1, 0), (10, 12, 1)]
    assert found[1] == PlacedSegment(10, 12, 1, Fraction(0.4), Fraction(1, 2))


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ((SyncSegment(1, 0.5),), r"segment 0: ends at 0\.5 s, but starts at 1 s"),
        ((SyncSegment(1, 1),), "segment 0: ends at 1 s, but starts at 1 s"),
        ((SyncSegment(0, 1), SyncSegment(0.5)), r"segment 0: lasts until 1 s, but segment 1 starts at 0\.5 s"),
        (
            (SyncSegment(2, 3), SyncSegment(1)),
            "segment 1: lasts until the end of the video, but segment 0 starts at 2 s",
        ),
        ((SyncSegment(-1),), "segment 0: start_s -1; expected seconds from 0 up"),
        ((SyncSegment(float("nan")),), "segment 0: start_s nan"),
        ((SyncSegment(0, audio_end_s=float("inf")),), "segment 0: audio_end_s inf"),
        ((SyncSegment(0, audio=-1),), "segment 0: audio -1; expected an index"),
        ((SyncSegment(0, audio_start_s=2, audio_end_s=1),), "segment 0: its audio ends at 1 s, but starts at 2 s"),
        ((SyncSegment(0, 1),) * 101, "segments: found 101; at most 100"),
    ],
)
def test_impossible_segments_are_named(segments, words: str):
    with pytest.raises(InvalidRequest, match=words):
        SyncOptions(segments=segments)


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (SyncSegment(0.8), r"segment 0: from 0\.8 s to its end, but the video lasts 0\.80 s"),
        (SyncSegment(0.1, 0.91), r"segment 0: from 0\.1 s to 0\.91 s, but the video lasts 0\.80 s"),
        (SyncSegment(0.1, 0.11), "segment 0: is shorter than a frame"),
        (SyncSegment(0, audio_start_s=1), "segment 0: from 1 s to 1 s of audio 0, but that lasts 1"),
        (SyncSegment(0, audio=1, audio_end_s=0.7), r"to 0\.7 s of audio 1, but that lasts 0\.50 s"),
    ],
)
def test_segments_beyond_the_media_are_named(segment: SyncSegment, words: str):
    with pytest.raises(InvalidRequest, match=words):
        place_segments([segment], N_FRAMES, FPS, DURATIONS_S, ends_with_audio=False)


def test_options_that_do_not_go_together_are_named(syncer: LipSyncer):
    with pytest.raises(InvalidRequest, match="sync_mode 'remap': changes the speed"):
        SyncOptions(segments=(SyncSegment(0),), sync_mode="remap")
    with pytest.raises(InvalidRequest, match="segments: do not apply to parity"):
        SyncOptions(segments=(SyncSegment(0),), tail=PARITY.tail)
    audio = as_wav(tone(800, 0.2))
    with pytest.raises(InvalidRequest, match="2 audio files without segments"):
        syncer.sync(b"", [audio, audio])
    with pytest.raises(InvalidRequest, match="segment 0: audio 2, counted from 0; found 2 audio files"):
        syncer.sync(b"", [audio, audio], SyncOptions(segments=(SyncSegment(0, audio=2),)))
    with pytest.raises(InvalidRequest, match="segments: the face is an image"):
        syncer.sync(make_image(talk(1)[0]), audio, SyncOptions(segments=(SyncSegment(0),)))


def test_a_spliced_track_is_read_in_any_pieces():
    base = AudioBuffer(np.arange(1, 9, dtype=np.int16), 10)
    part = AudioBuffer(np.arange(100, 110, dtype=np.int16), 10)
    parts = [TrackPart(2, 5, part, 4, 6), TrackPart(7, 9, part, 0, 10)]
    expected = [1, 2, 104, 105, 0, 6, 7, 100, 101, 0]
    track = SplicedTrack(base, parts, AudioFormat(10), 10)
    for size in (1, 3, 10):
        read = [track.read(start, start + size)[:, 0] for start in range(0, 10, size)]
        assert np.concatenate(read).tolist() == expected
    assert SplicedTrack(None, parts, AudioFormat(10), 4).read(0, 10)[:, 0].tolist() == [0, 0, 104, 105]


def test_a_part_that_ends_before_its_audio_is_followed_by_silence():
    with AudioSpool(AudioFormat(8_000)) as spool:
        spool.append(np.arange(1, 101, dtype=np.int16))
        track = SplicedTrack(None, [TrackPart(10, 60, spool, 20, 40)], AudioFormat(8_000), 80)
        read = np.concatenate([track.read(start, start + 7)[:, 0] for start in range(0, 80, 7)])
    assert read.tolist() == [0] * 10 + list(range(21, 41)) + [0] * 50


def test_tracks_are_converted_to_the_best_of_their_formats():
    with AudioSpool(AudioFormat(16_000)) as mono, AudioSpool(AudioFormat(8_000, 2)) as stereo:
        mono.append(tone(400, 0.5))
        stereo.append(np.repeat(tone(400, 0.5, 8_000), 2))
        best = common_format([mono, stereo])
        assert best == AudioFormat(16_000, 2)
        with convert_spool(mono, best) as wide, convert_spool(stereo, best) as fast:
            assert np.array_equal(wide.read(0, len(wide)), np.repeat(tone(400, 0.5)[:, None], 2, axis=1))
            assert len(fast) == pytest.approx(len(wide), abs=40)
            difference = fast.read(200, 7800).astype(int) - wide.read(200, 7800)
            assert np.abs(difference).max() < 300
        assert convert_spool(mono, AudioFormat(16_000)) is mono
