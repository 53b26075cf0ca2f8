"""The worker's routes, with checkpoints of random weights."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_video

from container.worker.child import run_request
from container.worker.messages import (
    LOG_NAME,
    DeadlineChanged,
    Done,
    Failed,
    JobDone,
    Part,
    Progress,
    RequestParsed,
    WordsRead,
    WorkerRequest,
)
from container.worker.routes import WorkerRoutes
from inference.engines import Engines
from inference.error_responses import Failure
from inference.lip_reading import Transcript, Word
from inference.lip_reading.partial_words import OnWords
from inference.media_types import JSON, MP4, NDJSON, AcceptHeader

NEVER = threading.Event()


class Pipe:
    """Collects the messages that precede an answer."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
def routes(engines: Engines) -> WorkerRoutes:
    return WorkerRoutes(engines)


@pytest.fixture
def make_request(tmp_path: Path) -> Callable[..., WorkerRequest]:
    folder = tmp_path / "request"
    folder.mkdir()

    def make(route: str = "invocations", *, seconds: float = 0.4, names: tuple[str, str] = ("face", "audio"), **kwargs):
        contents = {names[0]: make_video(talk(10)), names[1]: voice(seconds)}
        body = {name: base64.b64encode(one).decode() for name, one in contents.items()} | kwargs.pop("fields", {})
        (folder / "body").write_text(json.dumps(body))
        accept = AcceptHeader.parse(kwargs.pop("accept", None))
        return WorkerRequest(route, {"content-type": JSON}, folder / "body", "id-1", accept, **kwargs)

    return make


def run(worker_request: WorkerRequest, routes: WorkerRoutes, canceled: Any = NEVER) -> tuple[Done | Failed, list[Any]]:
    """Return the last message, and those before it."""
    pipe = Pipe()
    return run_request(worker_request, pipe, canceled, routes), pipe.sent


def run_to_end(worker_request: WorkerRequest, routes: WorkerRoutes) -> Done:
    last, _ = run(worker_request, routes)
    assert isinstance(last, Done), last
    return last


def run_to_failure(worker_request: WorkerRequest, routes: WorkerRoutes, canceled: Any = NEVER) -> Failure:
    last, _ = run(worker_request, routes, canceled)
    assert isinstance(last, Failed), last
    return last.failure


def files_of(worker_request: WorkerRequest) -> list[str]:
    return sorted(path.name for path in worker_request.folder.iterdir())


def test_a_video_is_a_file_in_the_requests_folder(routes: WorkerRoutes, make_request):
    deadline = time.monotonic() + 600
    worker_request = make_request(
        fields={"task": "lipsync"}, accept=MP4, deadline=deadline, sync_deadline=deadline + 60
    )
    last, sent = run(worker_request, routes)
    assert isinstance(last, Done)
    assert isinstance(last.body, Path)
    assert (last.content_type, last.body.parent) == (MP4, worker_request.folder)
    assert last.body.stat().st_size > 1000
    assert sent == [DeadlineChanged(deadline + 60)]


def test_a_generation_has_a_short_answer(routes: WorkerRoutes, make_request):
    last = run_to_end(make_request("generate", names=("image", "audio")), routes)
    found = json.loads(last.body)
    assert (last.content_type, found["status"], found["num_frames"]) == (JSON, "success", 10)
    assert set(found) == {"status", "video", "num_frames", "duration_s", "warnings"}
    assert found["duration_s"] == 0.4
    assert base64.b64decode(found["video"])[4:8] == b"ftyp"


def test_a_generation_may_be_the_video_itself(routes: WorkerRoutes, make_request):
    last = run_to_end(make_request("generate", names=("image", "audio"), accept=MP4), routes)
    assert isinstance(last.body, Path)
    assert (last.body.read_bytes()[4:8], last.content_type) == (b"ftyp", MP4)


@pytest.mark.parametrize(("accept", "is_streamed"), [(NDJSON, True), (JSON, False)])
def test_words_are_streamed_if_the_answer_is_lines(
    engines: Engines,
    tmp_path: Path,
    talking_film: bytes,
    monkeypatch: pytest.MonkeyPatch,
    accept: str,
    is_streamed: bool,
):
    read = engines.reader.read

    def read_with_words(*args: Any, on_words: OnWords | None = None) -> Transcript:
        if on_words is not None:
            on_words([Word("bin", 0.0, 0.5, 0.9)])
        return read(*args)

    monkeypatch.setattr(engines.reader, "read", read_with_words)
    (tmp_path / "body").write_bytes(talking_film)
    worker_request = WorkerRequest(
        "invocations", {"content-type": MP4}, tmp_path / "body", "id-1", AcceptHeader.parse(accept)
    )
    last, sent = run(worker_request, WorkerRoutes(engines))
    assert isinstance(last, Done)
    assert (last.content_type, json.loads(last.body)["status"]) == (accept, "success")
    parts = [json.loads(part.body) for part in sent if isinstance(part, Part)]
    assert [(part["status"], part["words"][0]["word"]) for part in parts] == [("reading", "bin")] * is_streamed
    assert len(parts) == len(sent)


def test_a_job_leaves_its_videos_as_files(routes: WorkerRoutes, make_request, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)  # as `set_up_logs` does
    fields = {"task": "lipsync", "models": ["wav2lip", "wav2lip_gan"]}
    worker_request = make_request(fields=fields, sync_deadline=time.monotonic() + 600, is_job=True)
    last, sent = run(worker_request, routes)
    assert isinstance(last, JobDone), last
    assert [one.name for one in last.outputs] == ["wav2lip.mp4", "wav2lip_gan.mp4"]
    for output in last.outputs:
        assert output.path.parent == worker_request.folder
        assert (output.path.read_bytes()[4:8], output.content_type) == (b"ftyp", MP4)
        assert (output.details["num_frames"], output.details["duration_s"]) == (10, 0.4)
    assert last.result["status"] == "success"
    assert [set(one) & {"path", "video"} for one in last.result["outputs"]] == [set(), set()]
    assert last.ram_peak_mib is not None
    assert last.ram_peak_mib > 50
    assert sent[1] == RequestParsed("lipsync", ("wav2lip.mp4", "wav2lip_gan.mp4"))
    assert [type(one) for one in sent[:3]] == [DeadlineChanged, RequestParsed, Progress]
    log = (worker_request.folder / LOG_NAME).read_text()
    assert [f'video made model="{name}" frames=10' in log for name in fields["models"]] == [True, True]


def test_a_job_reads_words_and_leaves_transcripts(
    engines: Engines, tmp_path: Path, talking_film: bytes, monkeypatch: pytest.MonkeyPatch
):
    read = engines.reader.read

    def read_with_words(*args: Any, on_words: OnWords | None = None) -> Transcript:
        assert on_words is not None
        on_words([Word("bin", 0.0, 0.5, 0.9)])
        return read(*args)

    monkeypatch.setattr(engines.reader, "read", read_with_words)
    (tmp_path / "body").write_bytes(talking_film)
    worker_request = WorkerRequest("invocations", {"content-type": MP4}, tmp_path / "body", "id-1", is_job=True)
    last, sent = run(worker_request, WorkerRoutes(engines))
    assert isinstance(last, JobDone), last
    assert WordsRead(({"word": "bin", "start": 0.0, "end": 0.5, "confidence": 0.9},)) in sent
    contents = {one.name: one.path.read_text() for one in last.outputs}
    assert contents["transcript.txt"] == last.result["text"] + "\n"
    assert json.loads(contents["transcript.json"]) == last.result
    assert contents["transcript.vtt"].startswith("WEBVTT")
    assert "transcript.srt" in contents


def test_a_job_that_fails_leaves_its_log(routes: WorkerRoutes, make_request):
    worker_request = make_request(fields={"task": "lipsync", "models": ["unknown"]}, is_job=True)
    last, _ = run(worker_request, routes)
    assert isinstance(last, Failed)
    assert last.failure.code == "invalid_request"
    assert last.ram_peak_mib is not None
    assert last.ram_peak_mib > 50
    assert set(files_of(worker_request)) <= {"body", LOG_NAME}


def test_the_log_of_a_job_has_no_traceback(routes: WorkerRoutes, make_request, monkeypatch: pytest.MonkeyPatch):
    """Callers can read it."""

    def fail(*_arguments: object) -> None:
        raise ValueError("a detail\nof ours")

    monkeypatch.setattr(Engines, "run", fail)
    worker_request = make_request(fields={"task": "lipsync"}, is_job=True)
    assert run_to_failure(worker_request, routes).code == "internal_error"
    log = (worker_request.folder / LOG_NAME).read_text()
    assert 'request failed request_id="id-1" code="internal_error" exception="ValueError"\n' in log
    assert "a detail" not in log


def test_a_deadline_names_the_stage_and_leaves_nothing(routes: WorkerRoutes, make_request):
    worker_request = make_request(fields={"task": "lipsync"}, seconds=30, sync_deadline=time.monotonic() + 0.5)
    failure = run_to_failure(worker_request, routes)
    assert (failure.status, failure.code) == (504, "deadline_exceeded")
    assert "last: " in failure.message
    assert files_of(worker_request) == ["body"]


def test_a_canceled_request_leaves_nothing(routes: WorkerRoutes, make_request):
    gone = threading.Event()
    gone.set()
    worker_request = make_request(fields={"task": "lipsync"}, seconds=30)
    assert run_to_failure(worker_request, routes, gone).code == "canceled"
    assert files_of(worker_request) == ["body"]


@pytest.mark.parametrize(
    ("fields", "accept", "status", "words"),
    [
        ({"task": "lipsync", "models": ["unknown"]}, JSON, 400, "there are wav2lip, wav2lip_gan"),
        ({"task": "lipsync"}, "text/vtt", 415, "expected one of application/json, video/mp4"),
        ({"task": "lipsync", "models": ["wav2lip", "wav2lip_gan"]}, MP4, 400, "do not fit into one"),
        ({}, JSON, 400, '"task": lipread takes no audio; expected "lipsync"'),
    ],
)
def test_the_callers_mistakes(routes: WorkerRoutes, make_request, fields: dict, accept: str, status: int, words: str):
    failure = run_to_failure(make_request(fields=fields, accept=accept), routes)
    assert failure.status == status
    assert words in failure.message
