from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.file_size_limit import file_size_limit
from support.small_wav2lip import RATE, as_wav, voice
from support.synthetic_frames import talk
from support.video_files import encode_rgba, make_image, make_video, rotate_by_metadata

from bench.heif_files import make_heif_grid
from inference.errors import (
    Canceled,
    DeadlineExceeded,
    InvalidRequest,
    MediaTruncated,
    NoAudio,
    NoFaceFound,
    StorageError,
    UnsupportedMedia,
    WeightsNotFound,
    WrongWeights,
)
from inference.lip_sync import LipSyncer, Pads, SyncOptions, pipeline
from inference.lip_sync.model import find_deployed_checkpoints
from inference.media import SandboxedDecoder, open_media
from inference.media.media_warnings import TRANSPARENT
from inference.settings import Settings
from inference.stage_timer import Deadline, StageClock


@pytest.fixture(scope="module")
def face_clip() -> bytes:
    return make_video(talk(25), crf=10)


def lengths(path: Path) -> tuple[int, float, float]:
    """Return the number of frames, and the seconds of video and of audio, as a player counts them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path)) as container:
        n_samples = sum(frame.samples for frame in container.decode(audio=0))
        audio_s = float(container.streams.audio[0].duration * container.streams.audio[0].time_base)
    step = frames[1].pts - frames[0].pts
    end = (frames[-1].pts + step - frames[0].pts) * frames[0].time_base
    assert n_samples / RATE == pytest.approx(audio_s, abs=0.07)
    return len(frames), float(end), audio_s


def frames_of(source: Path | bytes, fps: float = 25) -> list[np.ndarray]:
    with open_media(source) as media:
        return [frame for clip in media.read_clips(fps) for frame in clip.frames]


def test_the_video_is_as_long_as_the_audio(syncer: LipSyncer, face_clip: bytes, tmp_path: Path):
    out = tmp_path / "a.b out.mp4"
    reported: list[tuple[int, int]] = []
    result = syncer.sync(face_clip, voice(2.4), output=out, progress=lambda done, total: reported.append((done, total)))
    n_frames, video_s, audio_s = lengths(out)
    assert (n_frames, result.num_frames, result.fps) == (60, 60, 25)
    assert abs(video_s - audio_s) <= 0.04
    assert (result.width, result.height) == (360, 288)
    assert result.frames_without_face == 0
    assert reported == [(i, 60) for i in range(1, 61)]
    assert sorted(tmp_path.iterdir()) == [out]
    assert {"sound", "decode", "detect", "model", "compose", "encode", "total"} <= set(result.timings_ms)


def test_only_the_mouth_changes_and_the_video_plays_back_and_forth(syncer: LipSyncer, face_clip: bytes, tmp_path: Path):
    out = tmp_path / "out.mp4"
    syncer.sync(face_clip, voice(1.6), output=out)
    before, after = frames_of(face_clip), frames_of(out)
    order = [k if k < 25 else 48 - k for k in range(40)]
    for k in (0, 12, 24, 30, 39):
        change = np.abs(after[k].astype(int) - before[order[k]]).mean(axis=2)
        rows, columns = np.nonzero(change > 40)
        assert len(rows) > 100  # random weights change much
        assert change[:100].mean() < 3  # forehead and background: only the encoder changes them
        assert rows.min() > 120
        assert columns.min() > 90
        assert columns.max() < 270


def test_several_checkpoints_in_one_pass(checkpoints: list[Path], weights_cache, face_clip: bytes, tmp_path: Path):
    both = LipSyncer(checkpoints, device="cpu", precision="f32")
    result = both.sync(face_clip, voice(0.4), output=tmp_path / "out.mp4")
    paths = [tmp_path / "out.wav2lip.mp4", tmp_path / "out.wav2lip_gan.mp4"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert [(one.model, one.path) for one in result.outputs] == [("wav2lip", paths[0]), ("wav2lip_gan", paths[1])]
    assert "commercial" in result.warnings[0]
    one, other = (np.stack(frames_of(path)).astype(int) for path in paths)
    assert np.abs(one - other).max() > 20
    alone = LipSyncer(checkpoints[1:], device="cpu", precision="f32").sync(face_clip, voice(0.4))
    assert alone.outputs[0].video is not None
    assert np.array_equal(np.stack(frames_of(alone.outputs[0].video)), other)


def test_an_image_is_synced(syncer: LipSyncer):
    still = talk(1)[0][:287, :331]
    result = syncer.sync(make_image(still), voice(0.48))
    assert (result.num_frames, result.fps, result.width, result.height) == (12, 25, 332, 288)


@pytest.mark.parametrize("quarter_turns", [None, 3])
def test_a_photo_of_a_phone_is_synced(syncer: LipSyncer, quarter_turns: int | None):
    still = np.rot90(talk(1)[0], quarter_turns or 0)  # stored as the sensor lay
    stored = make_heif_grid(np.ascontiguousarray(still), 128, quarter_turns=quarter_turns and 4 - quarter_turns)
    result = syncer.sync(stored, voice(0.48))
    assert (result.num_frames, result.fps, result.width, result.height) == (12, 25, 360, 288)
    assert result.frames_without_face == 0


def test_warnings_about_the_frames_are_in_the_result(syncer: LipSyncer):
    still = talk(1)[0]
    cutout = np.concatenate([still[..., ::-1], np.full((*still.shape[:2], 1), 255, np.uint8)], axis=2)
    cutout[:40, :, 3] = 0
    assert syncer.sync(encode_rgba(cutout), voice(0.2)).warnings == (*syncer.warnings, TRANSPARENT)


def test_options_are_applied(syncer: LipSyncer, face_clip: bytes):
    options = SyncOptions(fps=12.5, resize_factor=2, loop="restart", smoothing="none", paste="overwrite")
    result = syncer.sync(face_clip, voice(0.8), replace(options, pads=Pads(0, 4, 0, 0)))
    assert (result.num_frames, result.width, result.height) == (10, 180, 144)
    assert syncer.sync(face_clip, voice(0.4), SyncOptions(tail="drop", mel_offset_frames=0)).num_frames < 10


def test_frames_without_a_face_pass_through(syncer: LipSyncer, tmp_path: Path):
    wall = np.full((288, 360, 3), 120, np.uint8)
    wall[::8] = 60
    source = make_video([wall] * 5 + talk(10), crf=10)
    out = tmp_path / "out.mp4"
    result = syncer.sync(source, voice(0.6), output=out)
    assert result.frames_without_face == 5
    for before, after in zip(frames_of(source)[:5], frames_of(out)[:5], strict=True):
        assert np.abs(before.astype(int) - after).mean() < 4  # encoded twice


@pytest.mark.parametrize("container", ["webm", "mpeg", "matroska"])
def test_other_containers(syncer: LipSyncer, container: str):
    source = make_video(talk(10), container=container)
    assert syncer.sync(source, voice(0.6)).num_frames == 15


def test_a_video_of_variable_rate_rotated_by_metadata(syncer: LipSyncer):
    turned = [np.ascontiguousarray(np.rot90(frame)) for frame in talk(10)]
    times = [Fraction(int(i * 40 + (i % 3) * 7), 1000) for i in range(10)]
    result = syncer.sync(rotate_by_metadata(make_video(turned, times=times), 90), voice(0.4), SyncOptions(fps=25))
    assert (result.num_frames, result.width, result.height, result.frames_without_face) == (10, 360, 288, 0)


def test_silence_is_valid_audio(syncer: LipSyncer, face_clip: bytes):
    result = syncer.sync(face_clip, as_wav(np.zeros(8000, np.int16)))
    assert result.num_frames == 12
    assert "silent_audio" in result.warnings


def test_a_video_may_supply_its_own_audio(syncer: LipSyncer):
    source = make_video(talk(15), with_tone=True)
    assert syncer.sync(source, source).num_frames == pytest.approx(15, abs=2)


def test_a_sandboxed_decoder_gives_the_same_video(checkpoints: list[Path], syncer: LipSyncer, face_clip: bytes):
    with SandboxedDecoder() as child:
        in_child = LipSyncer(
            checkpoints[:1], device="cpu", precision="f32", media=child.open, voice=child.spool_audio
        ).sync(face_clip, voice(0.6))
    in_process = syncer.sync(face_clip, voice(0.6))
    assert in_child.outputs[0].video is not None
    assert in_process.outputs[0].video is not None
    assert in_process.outputs[0].video == in_child.outputs[0].video


WALL = np.full((96, 128, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("face", "audio", "error", "words"),
    [
        (make_video([WALL] * 5), voice(0.4), NoFaceFound, "no face found in 5 frames"),
        (make_video([WALL] * 5), make_video([WALL] * 5), NoAudio, "contains video only"),
        (make_video([WALL] * 5), as_wav(np.zeros(0, np.int16)), NoAudio, "no sample"),
        (b"<html>", voice(0.4), UnsupportedMedia, "input"),
        (voice(0.4), voice(0.4), UnsupportedMedia, "contains audio only"),
    ],
    ids=["no face", "no audio", "no sample", "page", "video missing"],
)
def test_failures_are_explained_and_leave_no_file(syncer, tmp_path: Path, face, audio, error, words: str):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"an older video")
    with pytest.raises(error, match=words):
        syncer.sync(face, audio, output=out)
    assert out.read_bytes() == b"an older video"
    assert sorted(tmp_path.iterdir()) == [out]


def test_a_truncated_video_leaves_no_file(syncer: LipSyncer, tmp_path: Path):
    whole = make_video(talk(50), container="matroska")
    with pytest.raises(MediaTruncated):
        syncer.sync(whole[: len(whole) // 2], voice(3.0), output=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_caller_that_disconnects_ends_the_work(syncer: LipSyncer, face_clip: bytes, tmp_path: Path):
    def leave(done: int, _total: int) -> None:
        if done == 3:
            raise ConnectionResetError

    with pytest.raises((ConnectionResetError, StorageError)):
        syncer.sync(face_clip, voice(1.0), output=tmp_path / "out.mp4", progress=leave)
    assert not list(tmp_path.iterdir())


def test_faces_located_ahead_of_the_network_give_the_same_video(syncer: LipSyncer, monkeypatch: pytest.MonkeyPatch):
    frames = talk(25)
    for i in (0, 11, 12, 24):
        frames[i] = np.zeros_like(frames[i])
    source = make_video(frames, crf=10)
    found = []
    for n_threads in (1, 2):
        monkeypatch.setattr(pipeline, "count_threads", lambda _, n=n_threads: n)
        result = syncer.sync(source, voice(1.6))
        assert result.outputs[0].video is not None
        found.append((frames_of(result.outputs[0].video), result.frames_without_face, set(result.timings_ms)))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_error_of_either_thread_ends_the_work(
    syncer: LipSyncer, face_clip: bytes, tmp_path: Path, n_threads: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "count_threads", lambda _: n_threads)
    before, out = threading.active_count(), tmp_path / "out.mp4"

    def fail(*_: object) -> None:
        raise Canceled("the request was canceled")

    with pytest.raises(Canceled):
        syncer.sync(face_clip, voice(1.6), output=out, progress=fail)
    clock = StageClock(deadlines=(Deadline("decoding", 0.0, ("decode",)),))
    with pytest.raises(DeadlineExceeded, match="decoding took over 0 s"):
        syncer.sync(face_clip, voice(1.6), output=out, clock=clock)
    with pytest.raises(NoFaceFound):
        syncer.sync(make_video([np.full((96, 96, 3), 90, np.uint8)] * 5), voice(1.6), output=out)
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused(syncer: LipSyncer, face_clip: bytes, tmp_path: Path):
    for name, words in {"out.gif": r"out\.gif.*\.mp4", "no/out.mp4": "folder does not exist"}.items():
        with pytest.raises(InvalidRequest, match=words):
            syncer.sync(face_clip, voice(0.4), output=tmp_path / name)


def test_missing_weights_are_named(weights_cache: Path):
    with pytest.raises(WeightsNotFound, match=r"'nope': no such set.*known: starter, wav2lip, wav2lip_gan"):
        LipSyncer(["nope"], device="cpu")
    with pytest.raises(WeightsNotFound, match=r"wav2lip_gan\.pth does not come with Viseme.*no commercial use"):
        LipSyncer(["wav2lip_gan"], device="cpu")
    with pytest.raises(InvalidRequest, match="no checkpoint"):
        LipSyncer([], device="cpu")


def test_a_deployment_supplies_its_weights(checkpoints: list[Path], settings: Settings, weights_cache: Path):
    brought = settings.model_copy(update={"model_dir": checkpoints[0].parent})
    assert find_deployed_checkpoints(brought.weight_sources) == ["wav2lip", "wav2lip_gan"]
    assert [one.name for one in LipSyncer(["wav2lip"], device="cpu", settings=brought).generators] == ["wav2lip"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: b"<!DOCTYPE html><html>sign in</html>", "HTML page"),
        (lambda whole: whole[: len(whole) // 2], "cut-off|cut off"),
        (lambda _: b"", "is empty"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
    ids=["page", "cut off", "empty", "pointer"],
)
def test_a_bad_checkpoint_is_identified(checkpoints: list[Path], weights_cache, tmp_path: Path, make, words):
    for whole in checkpoints:
        bad = tmp_path / "wav2lip.pth"
        bad.write_bytes(make(whole.read_bytes()))
        with pytest.raises(WrongWeights, match=words):
            LipSyncer([bad], device="cpu")


def test_another_networks_weights_are_refused(weights_cache: Path, tmp_path: Path):
    from safetensors.torch import save_file

    from inference.models import LipCoordNet

    save_file(LipCoordNet().state_dict(), tmp_path / "lips.safetensors")
    with pytest.raises(WrongWeights, match="weights of another model; expected Wav2Lip"):
        LipSyncer([tmp_path / "lips.safetensors"], device="cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decode_deadline_s", "decode took over"),
        ("inference_deadline_s", "inference took over"),
        ("encode_deadline_s", "encode took over"),
        ("job_deadline_s", "the job took over"),
    ],
)
def test_a_deadline_stops_the_work_and_leaves_no_file(
    checkpoints: list[Path], settings: Settings, weights_cache, face_clip: bytes, tmp_path: Path, name: str, words: str
):
    strict = settings.model_copy(update={name: 1e-4})
    syncer = LipSyncer(checkpoints[:1], device="cpu", precision="f32", settings=strict)
    with pytest.raises(DeadlineExceeded, match=words):
        syncer.sync(face_clip, voice(0.4), output=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_file(syncer: LipSyncer, face_clip: bytes, full_disk: Path):
    with pytest.raises(StorageError, match="No space left"):
        syncer.sync(face_clip, voice(1.6), output=full_disk / "out.mp4")
    assert not list(full_disk.iterdir())


def test_a_file_size_limit_leaves_no_file(syncer: LipSyncer, face_clip: bytes, tmp_path: Path):
    with file_size_limit(64 << 10), pytest.raises(StorageError, match="File too large"):
        syncer.sync(face_clip, voice(1.6), output=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_subset_of_checkpoints(checkpoints: list[Path], weights_cache, face_clip: bytes):
    both = LipSyncer(checkpoints, device="cpu", precision="f32")
    both.warm_up()
    result = both.with_checkpoints(["wav2lip_gan", "wav2lip_gan"]).sync(face_clip, voice(0.2))
    (one,) = result.outputs
    assert one.model == "wav2lip_gan"
    assert 0 < one.ms_per_frame * result.num_frames <= result.timings_ms["model"] + 0.1
    assert [each.name for each in both.generators] == ["wav2lip", "wav2lip_gan"]
    with pytest.raises(WeightsNotFound, match="'wav2lip_hq': not loaded here; there are wav2lip, wav2lip_gan"):
        both.with_checkpoints(["wav2lip", "wav2lip_hq"])
