"""Audio and video of different lengths, in each sync mode: exact frames and samples."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from support.small_wav2lip import RATE, as_wav
from support.synthetic_frames import talk
from support.timed_media import click_of
from support.video_files import make_image, make_video

from inference.errors import InvalidRequest
from inference.lip_sync import PARITY, LipSyncer, SyncOptions, first_pass
from inference.lip_sync.audio_tracks import fit_audio
from inference.lip_sync.frame_spool import remap_frames, remapped_index
from inference.lip_sync.preprocess import FaceFrame
from inference.lip_sync.timeline import count_output_frames
from inference.media import SandboxedDecoder, open_media
from inference.media.encode import AudioBuffer

N_SOURCE, STEP = 16, 15  # frames of the video; levels between the grey stripes that number them
LONG, SHORT = 24, 10  # frames that the audio lasts
CLICK_FRAME = 5
FORWARD = list(range(N_SOURCE))
EXPECTED = {
    ("loop", LONG): FORWARD + FORWARD[:8],
    ("loop", SHORT): FORWARD[:SHORT],
    ("bounce", LONG): FORWARD + FORWARD[14:6:-1],
    ("bounce", SHORT): FORWARD[:SHORT],
    ("cut_off", LONG): FORWARD,
    ("cut_off", SHORT): FORWARD[:SHORT],
    ("silence", LONG): FORWARD + FORWARD[14:6:-1],
    ("silence", SHORT): FORWARD,
    ("remap", LONG): [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 15],
    ("remap", SHORT): [0, 2, 4, 5, 7, 8, 10, 12, 13, 15],
}


@pytest.fixture(scope="module")
def numbered_video() -> bytes:
    frames = talk(N_SOURCE)
    for i, frame in enumerate(frames):
        frame[:32] = i * STEP
    return make_video(frames, crf=5)


def clicking_audio(n_frames: int) -> bytes:
    samples = np.zeros(n_frames * RATE // 25, np.int16)
    at = CLICK_FRAME * RATE // 25
    samples[at : at + 320] = 25_000 * np.sin(np.arange(320) * 2 * np.pi / 16)
    return as_wav(samples)


def frame_numbers(video: bytes) -> list[int]:
    """Return which frame of the numbered video each frame is."""
    with open_media(video) as media:
        return [round(float(frame[4:24].mean()) / STEP) for clip in media.read_clips(25) for frame in clip.frames]


def track_seconds(video: bytes) -> tuple[float, float]:
    with av.open(io.BytesIO(video)) as container:
        streams = container.streams.video[0], container.streams.audio[0]
        return tuple(float(stream.duration * stream.time_base) for stream in streams)


@pytest.mark.parametrize(("mode", "n_audio"), sorted(EXPECTED))
def test_the_frames_of_each_mode(syncer: LipSyncer, numbered_video: bytes, mode: str, n_audio: int):
    expected = EXPECTED[mode, n_audio]
    result = syncer.sync(numbered_video, clicking_audio(n_audio), SyncOptions(sync_mode=mode))
    video = result.outputs[0].video
    assert video is not None
    assert frame_numbers(video) == expected
    assert (result.num_frames, result.duration_s) == (len(expected), len(expected) / 25)
    assert track_seconds(video) == (pytest.approx(len(expected) / 25, abs=1e-3),) * 2
    assert click_of(video) == pytest.approx(CLICK_FRAME / 25, abs=0.01)
    assert result.frames_without_face == 0


def test_without_a_mode_the_video_is_as_long_as_the_audio(syncer: LipSyncer, numbered_video: bytes):
    for n_audio in (LONG, SHORT):
        modes = None, "bounce"
        synced = [syncer.sync(numbered_video, clicking_audio(n_audio), SyncOptions(sync_mode=one)) for one in modes]
        assert synced[0].outputs[0].video == synced[1].outputs[0].video


@pytest.mark.parametrize("mode", ["cut_off", "remap"])
def test_an_image_has_no_length(syncer: LipSyncer, mode: str):
    result = syncer.sync(make_image(talk(1)[0]), clicking_audio(6), SyncOptions(sync_mode=mode))
    assert (result.num_frames, result.duration_s) == (6, 0.24)


def test_a_decoder_process_reads_the_video_twice(checkpoints, numbered_video: bytes):
    with SandboxedDecoder() as child:
        syncer = LipSyncer(checkpoints[:1], device="cpu", precision="f32", media=child.open, voice=child.spool_audio)
        result = syncer.sync(numbered_video, clicking_audio(SHORT), SyncOptions(sync_mode="remap"))
    assert result.outputs[0].video is not None
    assert frame_numbers(result.outputs[0].video) == EXPECTED["remap", SHORT]


def test_only_lengths_that_count_are_measured(syncer: LipSyncer, numbered_video: bytes, monkeypatch):
    monkeypatch.setattr(first_pass, "count_source_frames", lambda clips: pytest.fail("the video was decoded twice"))
    for mode in (None, "bounce"):
        syncer.sync(numbered_video, clicking_audio(6), SyncOptions(sync_mode=mode))


@pytest.mark.parametrize(
    ("mode", "n_audio", "n_source", "n_frames"),
    [
        (None, 7, None, 7),
        ("cut_off", 7, 5, 5),
        ("cut_off", 5, 7, 5),
        ("silence", 7, 5, 7),
        ("silence", 5, 7, 7),
        ("remap", 7, 5, 7),
        ("remap", 5, 7, 5),
        ("cut_off", 7, None, 7),
    ],
)
def test_the_length_of_the_output(mode, n_audio: int, n_source: int | None, n_frames: int):
    assert count_output_frames(n_audio, n_source, SyncOptions(sync_mode=mode)) == n_frames


def test_remapped_frames_are_spread_evenly():
    for n_source, n_frames in ((1, 5), (7, 7), (25, 24), (24, 25), (1000, 3), (3, 1000)):
        indices = [remapped_index(k, n_source, n_frames) for k in range(n_frames)]
        assert indices == sorted(indices)
        assert indices[-1] <= n_source - 1
        ideal = [(k + 0.5) * n_source / n_frames - 0.5 for k in range(n_frames)]
        assert np.abs(np.array(indices) - ideal).max() <= 0.5


def test_a_video_that_ends_early_is_held():
    frames = [FaceFrame(np.full((2, 2, 3), i, np.uint8), None) for i in range(3)]
    assert [int(one.frame[0, 0, 0]) for one in remap_frames(frames, 6, 6)] == [0, 1, 2, 2, 2, 2]
    assert list(remap_frames([], 6, 6)) == []


def test_a_fitted_track_is_cut_or_padded():
    track = AudioBuffer(np.arange(1, 11, dtype=np.int16), 10)
    short, long = fit_audio(track, Fraction(6, 10)), fit_audio(track, Fraction(13, 10))
    assert (len(short), len(long)) == (6, 13)
    assert short.read(0, 9)[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert [long.read(start, start + 4)[:, 0].tolist() for start in (6, 8, 10, 12)] == [
        [7, 8, 9, 10],
        [9, 10, 0, 0],
        [0, 0, 0],
        [0],
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: SyncOptions(sync_mode="stretch"), "sync_mode 'stretch': expected one of loop, bounce, cut_off"),
        (lambda: SyncOptions(sync_mode="loop", tail=PARITY.tail), "sync_mode 'loop': does not apply to parity"),
    ],
)
def test_a_wrong_mode_is_named(options, words: str):
    with pytest.raises(InvalidRequest, match=words):
        options()
