"""Lip sync requests, with checkpoints of random weights."""

from __future__ import annotations

import base64
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.faulty_s3 import ErrorResponse, FaultyS3
from support.small_wav2lip import as_wav, voice
from support.synthetic_frames import talk
from support.video_files import make_video

from inference import handler
from inference.engines import Answer, Engines, RequestCallbacks, SyncResponse
from inference.engines import sync as syncing
from inference.errors import (
    AccessDenied,
    DeadlineExceeded,
    InvalidRequest,
    MediaNotFound,
    MediaTooLarge,
    NoAudio,
    NoFaceFound,
    StorageError,
    UnsupportedContentType,
    VisemeError,
    WeightsNotFound,
    WrongWeights,
)
from inference.media.s3.client import s3_client
from inference.media_types import JSON, MP4, AcceptHeader

BY_S3 = {
    "task": "lipsync",
    "s3_bucket": "media",
    "s3_video_key": "uploads/an actor.mp4",
    "s3_audio_key": "uploads/hello.wav",
    "s3_output_prefix": "results",
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder for temporary files; files in it at the end of a test were left behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Context:
    """The context of a hosting toolkit."""

    def __init__(self, **headers: str) -> None:
        self._headers = headers

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self._headers


def run(engines: Engines, fields: dict[str, Any], context: Context | None = None) -> SyncResponse:
    request = handler.input_fn(json.dumps(fields).encode(), JSON, context)
    prediction = handler.predict_fn(request, engines, context)
    assert isinstance(prediction, SyncResponse)
    return prediction


def run_with(engines: Engines, fields: dict[str, Any], **limits: Any) -> Answer:
    """Answer a request as the server does, with callbacks or limits of its own."""
    request = handler.input_fn(json.dumps(fields).encode(), JSON)
    return engines.answer(request, AcceptHeader(), RequestCallbacks(**limits))


def answer(engines: Engines, fields: dict[str, Any]) -> dict[str, Any]:
    body, content_type = handler.output_fn(run(engines, fields), None)
    assert content_type == JSON
    found: dict[str, Any] = json.loads(body)
    return found


def inline(face: bytes, audio: bytes) -> dict[str, Any]:
    return {"task": "lipsync", "face": base64.b64encode(face).decode(), "audio": base64.b64encode(audio).decode()}


def count_frames(contents: bytes, folder: Path) -> int:
    path = folder / "seen.mp4"
    path.write_bytes(contents)
    with av.open(str(path)) as container:
        n_frames = sum(1 for _ in container.decode(video=0))
    path.unlink()
    return n_frames


def keys(client: Any) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket="media").get("Contents", [])]


def unfinished(client: Any) -> list[str]:
    return [one["Key"] for one in client.list_multipart_uploads(Bucket="media").get("Uploads", [])]


def test_from_s3_to_s3_with_several_models(engines: Engines, bucket: Any, scratch: Path, caplog):
    with caplog.at_level(logging.INFO, "viseme.sync"):
        found = answer(engines, BY_S3 | {"models": ["wav2lip", "wav2lip_gan"], "enhance": "none"})
    assert found["status"] == "success"
    assert [one["model"] for one in found["outputs"]] == ["wav2lip", "wav2lip_gan"]
    for one in found["outputs"]:
        assert one["s3_bucket"] == "media"
        assert one["s3_key"].startswith("results/an_actor.hello.")
        assert one["s3_key"].endswith(f".{one['model']}.mp4")
        assert one["url"] == f"https://media.s3.us-east-1.amazonaws.com/{one['s3_key']}"
        assert (one["num_frames"], one["duration_s"]) == (10, 0.4)
        stored = bucket.get_object(Bucket="media", Key=one["s3_key"])
        assert stored["ContentType"] == "video/mp4"
        assert count_frames(stored["Body"].read(), scratch) == 10
        assert "path" not in one
        assert "video" not in one
    assert {"fetch", "sound", "decode", "detect", "model", "encode", "store", "total"} <= set(found["timings_ms"])
    assert found["memory"]["ram_peak_mib"] >= found["memory"]["ram_mean_mib"] > 50
    lines = [record for record in caplog.records if record.message == "video made"]
    assert [(line.model, line.frames, line.ms_per_frame > 0) for line in lines] == [
        ("wav2lip", 10, True),
        ("wav2lip_gan", 10, True),
    ]
    assert unfinished(bucket) == []


def test_only_a_repeated_request_replaces_its_videos(engines: Engines, bucket: Any):
    requests = [BY_S3, BY_S3, BY_S3 | {"nosmooth": True}]
    first, again, other = (answer(engines, fields)["outputs"][0]["s3_key"] for fields in requests)
    assert first == again != other


def test_segments_with_audio_files_in_s3(engines: Engines, bucket: Any, scratch: Path):
    by_s3 = {name: value for name, value in BY_S3.items() if name != "s3_audio_key"}
    bucket.put_object(Bucket="media", Key="uploads/bye.wav", Body=voice(0.2))
    fields = by_s3 | {
        "s3_audio_keys": ["uploads/hello.wav", "uploads/bye.wav"],
        "segments": [{"start_s": 0, "end_s": 0.2}, {"start_s": 0.2, "audio": 1}],
    }
    found = answer(engines, fields)
    assert (found["num_frames"], found["duration_s"], found["frames_without_face"]) == (10, 0.4, 0)
    first = found["outputs"][0]["s3_key"]
    bucket.put_object(Bucket="media", Key="uploads/other.wav", Body=voice(0.3))
    other = answer(engines, fields | {"s3_audio_keys": ["uploads/hello.wav", "uploads/other.wav"]})
    assert other["outputs"][0]["s3_key"] != first
    assert not list(scratch.iterdir())


def test_a_presigned_url(engines: Engines, bucket: Any):
    (one,) = answer(engines, BY_S3 | {"presigned": True, "s3_output_prefix": "s3://media/a b/"})["outputs"]
    address, _, query = one["url"].partition("?")
    assert address.startswith("https://media.s3.us-east-1.amazonaws.com/a%20b/")
    assert "X-Amz-Signature=" in query
    assert "X-Amz-Expires=3600" in query


def test_inline_in_and_out(engines: Engines, face: bytes, speech: bytes, scratch: Path):
    found = answer(engines, inline(face, speech))
    (one,) = found["outputs"]
    assert one["model"] == "wav2lip"  # the deployment's first
    assert count_frames(base64.b64decode(one["video"]), scratch) == 10
    assert (found["num_frames"], found["fps"], found["width"], found["height"]) == (10, 25, 360, 288)
    assert found["frames_without_face"] == 0
    assert "commercial" in found["warnings"][0]
    assert not list(scratch.iterdir())


def test_the_video_itself(engines: Engines, face: bytes, speech: bytes, scratch: Path):
    context = Context(accept=MP4)
    prediction = run(engines, inline(face, speech) | {"models": ["wav2lip_gan"]}, context)
    film_bytes, content_type = handler.output_fn(prediction, MP4, context)
    assert content_type == MP4
    assert count_frames(film_bytes, scratch) == 10
    assert prediction.only_video().parent.parent == scratch
    del prediction
    assert not list(scratch.iterdir())


def test_media_in_s3_need_no_output_folder_if_the_video_is_the_answer(engines: Engines, bucket: Any, scratch: Path):
    fields = {name: value for name, value in BY_S3.items() if name != "s3_output_prefix"}
    assert run(engines, fields, Context(accept=MP4)).only_video().is_file()
    assert keys(bucket) == ["uploads/an actor.mp4", "uploads/hello.wav"]


def test_options_in_the_headers(engines: Engines, face: bytes, speech: bytes):
    context = Context(**{"X-Amzn-SageMaker-Custom-Attributes": '{"resize_factor": 2, "fps": 12.5}'})
    result = run(engines, inline(face, speech) | {"resize_factor": 4}, context).result
    assert (result.width, result.num_frames) == (90, 5)


def test_videos_too_large_for_json(engines: Engines, face: bytes, speech: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syncing, "MAX_INLINE_BYTES", 1000)
    with pytest.raises(MediaTooLarge, match=r'at most 1000 fit into JSON; use "s3_output_prefix".*video/mp4'):
        answer(engines, inline(face, speech))


NOTHING_DONE: list[tuple[dict[str, Any], type[VisemeError], str]] = [
    ({"s3_output_prefix": None}, InvalidRequest, "s3_output_prefix.*missing"),
    ({"s3_output_prefix": "s3://no-such-bucket/a"}, MediaNotFound, "there is no bucket 'no-such-bucket'"),
    ({"s3_output_prefix": "out/../secret"}, InvalidRequest, "expected no control characters"),
    ({"models": ["wav2lip", "wav2lip_hq"]}, WeightsNotFound, "there are wav2lip, wav2lip_gan"),
]


@pytest.mark.parametrize(("fields", "error", "words"), NOTHING_DONE)
def test_errors_are_raised_before_any_work(
    engines: Engines, bucket: Any, fields: dict[str, Any], error: type[VisemeError], words: str, monkeypatch
):
    monkeypatch.setattr(bucket, "get_object", lambda **_: pytest.fail("the work began"))
    request = {name: value for name, value in (BY_S3 | fields).items() if value is not None}
    with pytest.raises(error, match=words):
        run(engines, request)
    assert unfinished(bucket) == []


def test_the_allow_list_applies_to_writing(engines: Engines, bucket: Any, monkeypatch: pytest.MonkeyPatch):
    buckets = engines.sync_engine._remote_files
    allowed = buckets._settings.model_copy(update={"allowed_buckets": ("media/uploads",)})
    monkeypatch.setattr(buckets, "_settings", allowed)
    with pytest.raises(AccessDenied, match=r"s3://media/results/.*allowed here"):
        run(engines, BY_S3)
    assert run(engines, BY_S3 | {"s3_output_prefix": "uploads/done"}).stored[0].key.startswith("uploads/done/")


def test_several_videos_do_not_fit_into_one(engines: Engines, face: bytes, speech: bytes):
    fields = inline(face, speech) | {"models": ["wav2lip", "wav2lip_gan"]}
    with pytest.raises(InvalidRequest, match="do not fit into one"):
        run(engines, fields, Context(accept=MP4))
    with pytest.raises(UnsupportedContentType, match="expected one of application/json, video/mp4"):
        run(engines, fields, Context(accept="text/vtt"))


WALL = np.full((96, 128, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("bad_face", "bad_audio", "error"),
    [
        (make_video([WALL] * 5), None, NoFaceFound),
        (None, make_video([WALL] * 5), NoAudio),
        (None, as_wav(np.zeros(0, np.int16)), NoAudio),
    ],
    ids=["no face", "no audio", "no sample"],
)
def test_unusable_media_leave_nothing(
    engines: Engines, bucket: Any, scratch: Path, bad_face: bytes | None, bad_audio: bytes | None, error
):
    for key, contents in (("uploads/an actor.mp4", bad_face), ("uploads/hello.wav", bad_audio)):
        if contents is not None:
            bucket.put_object(Bucket="media", Key=key, Body=contents)
    with pytest.raises(error):
        run(engines, BY_S3)
    assert keys(bucket) == ["uploads/an actor.mp4", "uploads/hello.wav"]
    assert unfinished(bucket) == []
    assert not list(scratch.iterdir())


class CallerDisconnected(Exception):
    """Raised by the check of a server."""


def disconnecting_after(n_checks: int) -> Callable[[], None]:
    left = iter(range(n_checks))

    def check() -> None:
        if next(left, None) is None:
            raise CallerDisconnected

    return check


@pytest.mark.parametrize("n_checks", [0, 5, 25])
def test_a_disconnected_caller_ends_the_work_and_leaves_nothing(
    engines: Engines, bucket: Any, scratch: Path, n_checks: int
):
    with pytest.raises(CallerDisconnected):
        run_with(engines, BY_S3, check=disconnecting_after(n_checks))
    assert unfinished(bucket) == []
    assert keys(bucket) == ["uploads/an actor.mp4", "uploads/hello.wav"]
    assert not list(scratch.iterdir())


def test_a_deadline_passes(engines: Engines, bucket: Any, scratch: Path):
    bucket.put_object(Bucket="media", Key="uploads/hello.wav", Body=voice(30))
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"the job took over 0\.2 s, which is its limit \(last: \w+\)"):
        run_with(engines, BY_S3, timeout_s=0.2)
    assert time.monotonic() - started < 30
    assert unfinished(bucket) == []
    assert not list(scratch.iterdir())


BUSY = ErrorResponse(503, "SlowDown")


@pytest.fixture
def faulty(face: bytes, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """Yield an S3 whose only object is a video of a face with audio."""
    with FaultyS3(make_video(talk(10), with_tone=True)) as server:
        monkeypatch.setattr(engines.sync_engine._remote_files, "_client", s3_client(server.url))
        yield server


def test_an_s3_that_fails_twice_each_time_and_then_works(engines: Engines, faulty: FaultyS3, scratch: Path):
    faulty.faults = [BUSY, BUSY, None] * 7
    assert run(engines, BY_S3).stored[0].url.startswith(faulty.url + "/media/results/an_actor.hello.")
    methods = [method for method, _ in faulty.requests]
    assert methods == [one for one in ("POST", "HEAD", "GET", "HEAD", "GET", "PUT", "POST") for _ in range(3)]
    assert not [path for path in scratch.iterdir() if not path.name.startswith("viseme-video-")]


@pytest.mark.parametrize(("n_works", "last_method"), [(0, "POST"), (1, "DELETE"), (5, "DELETE"), (6, "DELETE")])
def test_an_s3_that_stops_working(engines: Engines, faulty: FaultyS3, scratch: Path, n_works: int, last_method: str):
    """S3 fails before the work, while the face is fetched, while the video is sent, or at the end."""
    faulty.faults = [*[None] * n_works, *[BUSY] * 1000]
    with pytest.raises(StorageError, match=r"S3 failed|cannot be reached"):
        run(engines, BY_S3)
    assert faulty.requests[-1][0] == last_method
    assert not list(scratch.iterdir())


def test_a_full_disk(engines: Engines, bucket: Any, full_disk: Path, monkeypatch: pytest.MonkeyPatch):
    bucket.put_object(Bucket="media", Key="uploads/hello.wav", Body=voice(4))
    with pytest.raises(StorageError, match="No space left"):
        run_with(engines, BY_S3, folder=full_disk)
    assert unfinished(bucket) == []
    assert not list(full_disk.iterdir())


def test_without_checkpoints_the_error_names_what_to_install(
    engines: Engines, face: bytes, speech: bytes, monkeypatch: pytest.MonkeyPatch
):
    def find_none(*_: object) -> None:
        raise WeightsNotFound("no lip-sync weights: put wav2lip.pth into SM_MODEL_DIR")

    monkeypatch.setattr("inference.lip_sync.pipeline.load_generators", find_none)
    bare = syncing.SyncEngine.load(engines.sync_engine._settings, engines.sync_engine._remote_files, engines.decoder)
    monkeypatch.setattr(engines, "sync_engine", bare)
    assert engines.warm_up()["capabilities"] == {"lipread": True, "lipsync": False}
    with pytest.raises(WeightsNotFound, match=r"no lip-sync weights.*SM_MODEL_DIR"):
        run(engines, inline(face, speech))


def test_a_named_checkpoint_that_is_missing_ends_the_start(engines: Engines, bucket: Any):
    named = engines.sync_engine._settings.model_copy(update={"checkpoints": ("s3://media/wav2lip.pth",)})
    with pytest.raises(WeightsNotFound, match=r"wav2lip\.pth"):
        syncing.SyncEngine.load(named, engines.sync_engine._remote_files, engines.decoder)


def test_warm_up_runs_every_model(engines: Engines, monkeypatch: pytest.MonkeyPatch):
    found = engines.warm_up()
    assert found["capabilities"] == {"lipread": True, "lipsync": True}
    assert found["sync_models"] == ["wav2lip", "wav2lip_gan"]
    assert engines.reader.model.info.weights == "starter"  # not the checkpoints beside it
    assert engines.sync_engine.syncer is not None
    monkeypatch.setattr(type(engines.sync_engine.syncer.generators[0]), "generate_faces", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engines.warm_up()


def test_a_web_page_instead_of_a_checkpoint_ends_the_start(weights_cache: Path, tmp_path: Path):
    (tmp_path / "wav2lip.pth").write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(WrongWeights, match="HTML page"):
        handler.model_fn(str(tmp_path))


def test_a_quantised_reader_does_not_stop_the_start(engines: Engines, monkeypatch: pytest.MonkeyPatch):
    options: dict[str, Any] = {}
    monkeypatch.setattr(syncing, "LipSyncer", lambda **kwargs: options.update(kwargs))
    settings = engines.sync_engine._settings.model_copy(update={"precision": "int8"})
    syncing.SyncEngine.load(settings, engines.sync_engine._remote_files, engines.decoder)
    assert options["precision"] == "auto"
