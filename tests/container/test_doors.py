"""What the worker makes of a request, with checkpoints of random weights."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from films import film
from narrow_wav2lip import voice
from speaking import talk

from container.doors import Doors
from container.worker_main import Job, run_job
from inference import handler
from inference.engines import Engines

MP4, JSON = "video/mp4", "application/json"
NEVER = threading.Event()


class Pipe:
    """Keeps what the worker says before its answer."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def send(self, message: tuple[Any, ...]) -> None:
        self.said.append(message)


@pytest.fixture
def doors(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Doors:
    monkeypatch.setattr(handler, "model_fn", lambda _: engines)
    return Doors(None)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    folder = tmp_path / "request"
    folder.mkdir()

    def make(route: str = "invocations", *, seconds: float = 0.4, names: tuple[str, str] = ("face", "audio"), **about):
        contents = {names[0]: film(talk(10)), names[1]: voice(seconds)}
        body = {name: base64.b64encode(one).decode() for name, one in contents.items()} | about.pop("fields", {})
        (folder / "body").write_text(json.dumps(body))
        return Job(route, {"content-type": JSON} | about.pop("headers", {}), folder / "body", "id-1", **about)

    return make


def run(job: Job, doors: Doors, canceled: Any = NEVER) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    pipe = Pipe()
    return run_job(job, pipe, canceled, doors), pipe.said


def left(job: Job) -> list[str]:
    return sorted(path.name for path in job.folder.iterdir())


def test_a_film_is_a_file_in_the_jobs_folder(doors: Doors, make_job):
    ends = time.monotonic() + 600
    job = make_job(fields={"task": "lipsync"}, headers={"accept": MP4}, ends=ends, sync_ends=ends + 60)
    (kind, path, content_type), said = run(job, doors)
    assert (kind, content_type, path.parent) == ("done", MP4, job.folder)
    assert path.stat().st_size > 1000
    assert said == [("until", ends + 60)]


def test_a_generation_answers_in_few_words(doors: Doors, make_job):
    (kind, body, content_type), _ = run(make_job("generate", names=("image", "audio")), doors)
    found = json.loads(body)
    assert (kind, content_type, found["status"], found["num_frames"]) == ("done", JSON, "success", 10)
    assert found["duration_s"] == 0.4
    assert base64.b64decode(found["video"])[4:8] == b"ftyp"


def test_a_generation_may_be_the_film_itself(doors: Doors, make_job):
    (_, path, content_type), _ = run(make_job("generate", names=("image", "audio"), headers={"accept": MP4}), doors)
    assert (path.read_bytes()[4:8], content_type) == (b"ftyp", MP4)


def test_a_deadline_names_the_stage_and_leaves_nothing(doors: Doors, make_job):
    job = make_job(fields={"task": "lipsync"}, seconds=30, sync_ends=time.monotonic() + 0.5)
    (kind, failure), _ = run(job, doors)
    assert (kind, failure.status, failure.code) == ("failed", 504, "deadline_exceeded")
    assert "last: " in failure.message
    assert left(job) == ["body"]


def test_a_caller_who_left_ends_the_work_and_leaves_nothing(doors: Doors, make_job):
    gone = threading.Event()
    gone.set()
    job = make_job(fields={"task": "lipsync"}, seconds=30)
    (kind, failure), _ = run(job, doors, gone)
    assert (kind, failure.code) == ("failed", "canceled")
    assert left(job) == ["body"]


@pytest.mark.parametrize(
    ("fields", "headers", "status", "words"),
    [
        ({"task": "lipsync", "models": ["nobody"]}, {}, 400, "there are wav2lip, wav2lip_gan"),
        ({"task": "lipsync"}, {"accept": "text/vtt"}, 415, "expected one of application/json, video/mp4"),
        ({"task": "lipsync", "models": ["wav2lip", "wav2lip_gan"]}, {"accept": MP4}, 400, "do not fit into one"),
        ({}, {}, 400, '"task": lipread takes no voice; expected "lipsync"'),
    ],
)
def test_the_callers_mistakes(doors: Doors, make_job, fields: dict, headers: dict, status: int, words: str):
    (kind, failure), _ = run(make_job(fields=fields, headers=headers), doors)
    assert (kind, failure.status) == ("failed", status)
    assert words in failure.message
