"""`viseme jobs` against servers that break connections and give wrong answers.

A real server is in tests/container/test_jobs_end_to_end.py.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from container.cli import main
from container.commands import job_bodies, job_server
from container.commands.job_server import JobServer, ServerEvent
from container.commands.jobs import JobView
from inference.errors import InvalidRequest, ServingError, StorageError

JOB = "0123456789abcdef" * 2
VIDEO = bytes(range(256)) * 40
Handle = Callable[["Call"], None]


class Call(BaseHTTPRequestHandler):
    """A request to a scripted server, answered by the next function of its script, or by the last one."""

    server: ScriptedServer

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append(self)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names of http.server

    def reply(self, body: bytes | dict[str, Any], status: int = 200, length: int | None = None, **headers: str) -> None:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


class ScriptedServer(ThreadingHTTPServer):
    def __init__(self, *script: Handle) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.script, self.calls = list(script), list[Call]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*script: Handle) -> Iterator[ScriptedServer]:
    with ScriptedServer(*script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "RETRY_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def client_of(server: ScriptedServer, patience_s: float = 60.0) -> JobServer:
    return JobServer(server.url, "secret", patience_s=patience_s)


def drop(call: Call) -> None:
    """Close the connection without an answer."""
    call.close_connection = True


def refuse(status: int, code: str) -> Handle:
    return lambda call: call.reply({"status": "error", "error": {"code": code, "message": "why"}}, status)


def stream(*events: tuple[int, str, dict[str, Any]], length: int | None = None) -> Handle:
    text = "retry: 2000\n\n: keep-alive\n\n"
    text += "".join(f"id: {i}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for i, kind, data in events)
    return lambda call: call.reply(text.encode(), length=length, Content_Type="text/event-stream")


def record(**fields: Any) -> Handle:
    found = {"id": JOB, "state": "succeeded", "task": "lipread", "result": {"text": "bin blue"}, "outputs": []}
    return lambda call: call.reply(found | {"attempts": [], "error": None} | fields)


def output_of(content: bytes, name: str = "wav2lip.mp4") -> dict[str, Any]:
    url = f"/v1/jobs/{JOB}/outputs/{name}"
    return {"name": name, "state": "succeeded", "url": url, "size": len(content), "sha256": sha256(content).hexdigest()}


def test_a_lost_event_stream_is_continued_after_the_last_event():
    first = stream((1, "state", {"attempt": 0, "state": "queued"}), length=100_000)  # it breaks off
    second = stream((2, "words", {"attempt": 1, "words": []}), (3, "state", {"attempt": 1, "state": "succeeded"}))
    with serving(first, drop, refuse(503, "not_ready"), second) as server:
        assert [event.id for event in client_of(server).events(JOB)] == ["1", "2", "3"]
    assert [call.headers["Last-Event-ID"] for call in server.calls] == [None, "1", "1", "1"]
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer secret"}


def test_a_stream_that_the_server_ends_is_continued():
    first = stream((1, "state", {"attempt": 0, "state": "queued"}))
    with serving(first, lambda call: call.reply(b"", 204)) as server:
        assert [event.id for event in client_of(server).events(JOB)] == ["1"]


def test_a_server_that_stays_away_is_given_up():
    with serving(drop) as server, pytest.raises(ServingError):
        list(client_of(server, patience_s=0.05).events(JOB))
    with pytest.raises(ServingError, match="cannot be reached"):
        JobServer(server.url, patience_s=0.0).find(JOB)


def test_a_submission_whose_answer_was_lost_is_repeated_with_the_same_key(tmp_path: Path):
    (tmp_path / "body").write_bytes(VIDEO)
    with serving(drop, refuse(503, "overloaded"), lambda call: call.reply({"id": JOB}, 202)) as server:
        found = client_of(server).submit(tmp_path / "body", {"Content-Type": "video/mp4"})
    assert found["id"] == JOB
    assert [call.body for call in server.calls] == [VIDEO] * 3
    keys = {call.headers["Idempotency-Key"] for call in server.calls}
    assert len(keys) == 1
    assert len(keys.pop()) == 32


def test_a_rejected_submission_is_not_repeated(tmp_path: Path):
    (tmp_path / "body").write_bytes(VIDEO)
    with serving(refuse(409, "idempotency_conflict")) as server, pytest.raises(InvalidRequest, match="conflict: why"):
        client_of(server).submit(tmp_path / "body", {})
    assert len(server.calls) == 1


def test_a_broken_download_is_continued(tmp_path: Path):
    def rest(call: Call) -> None:
        start = int(call.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        call.reply(VIDEO[start:], 206)

    with serving(lambda call: call.reply(VIDEO[:5000], length=len(VIDEO)), drop, rest) as server:
        client_of(server).download(output_of(VIDEO), tmp_path / "made" / "a.mp4")
    assert (tmp_path / "made" / "a.mp4").read_bytes() == VIDEO
    assert [call.headers["Range"] for call in server.calls] == [None, "bytes=5000-", "bytes=5000-"]


def test_a_server_without_ranges_sends_the_whole_again(tmp_path: Path):
    whole: Handle = lambda call: call.reply(VIDEO)  # noqa: E731
    with serving(lambda call: call.reply(VIDEO[:5000], length=len(VIDEO)), whole) as server:
        client_of(server).download(output_of(VIDEO), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO


def test_other_bytes_than_those_recorded_are_not_written(tmp_path: Path):
    with (
        serving(lambda call: call.reply(VIDEO[::-1])) as server,
        pytest.raises(StorageError, match=r"the SHA-256 is \w+; expected"),
    ):
        client_of(server).download(output_of(VIDEO), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_the_token_is_not_sent_to_another_host(tmp_path: Path):
    with serving(lambda call: call.reply(VIDEO)) as bucket:
        location = f"{bucket.url}/bucket/key"
        with serving(lambda call: call.reply(b"", 307, Location=location)) as server:
            client_of(server).download(output_of(VIDEO), tmp_path / "a.mp4")
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer secret"]
    assert [call.headers["Authorization"] for call in bucket.calls] == [None]


def test_pages_are_followed_to_the_limit():
    def page(call: Call) -> None:
        number = len(server.calls)
        call.reply({"jobs": [{"id": f"{number}.{i}"} for i in range(100)], "next_cursor": f"c{number}"})

    with serving(page) as server:
        found = list(client_of(server).pages("failed", 200))
    assert len(found) == 200
    assert [call.path for call in server.calls] == [
        "/v1/jobs?state=failed&limit=100",
        "/v1/jobs?state=failed&cursor=c1&limit=100",
    ]


@pytest.mark.parametrize("answer", [b"<html>", b"[]"])
def test_another_kind_of_server_is_named(answer: bytes):
    with serving(lambda call: call.reply(answer)) as server, pytest.raises(ServingError, match="JSON"):
        client_of(server).find(JOB)


def test_watching_prints_each_word_once_over_attempts(capsys: pytest.CaptureFixture[str]):
    def words(i: int, attempt: int, *texts: str) -> tuple[int, str, dict[str, Any]]:
        return i, "words", {"attempt": attempt, "words": [{"word": text} for text in texts]}

    lost = {"attempt": 1, "state": "queued", "error": {"code": "worker_died", "message": "the worker died"}}
    events = stream(
        words(1, 1, "bin", "blue"),
        (2, "state", lost),
        (3, "progress", {"attempt": 2, "stage": "reading", "progress": 10}),
        words(4, 2, "bin"),
        words(5, 2, "blue", "at"),
        (6, "state", {"attempt": 2, "state": "succeeded"}),
    )
    with serving(record(), events, record()) as server:
        assert main(["jobs", "watch", JOB, "--url", server.url]) == 0
    printed = capsys.readouterr()
    assert printed.out == "bin blue\nat\n"
    assert printed.err == "viseme: attempt 1 failed, and the job is queued again: the worker died\n"


def test_watching_moves_a_bar():
    shown: list[tuple[str, float]] = []
    with Progress(console=Console(file=io.StringIO())) as progress:
        task = progress.add_task("lipsync", total=100)
        view = JobView(progress, task)
        for i, (attempt, percent) in enumerate([(1, 40), (1, 80), (2, 10)], 1):
            fields = {"attempt": attempt, "stage": f"syncing {i}", "progress": percent}
            view.update(ServerEvent(str(i), "progress", fields), prints_words=True)
            shown.append((progress.tasks[0].description, progress.tasks[0].percentage))
        view.update(ServerEvent("4", "state", {"attempt": 3, "state": "starting"}), prints_words=True)
        shown.append((progress.tasks[0].description, progress.tasks[0].percentage))
    assert shown == [("syncing 1", 40), ("syncing 2", 80), ("syncing 3", 10), ("syncing 3", 0)]


@pytest.mark.parametrize(
    ("ended", "code", "message"),
    [
        ({"state": "failed", "error": {"code": "no_face_found", "message": "no face", "status": 400}}, 2, "no face"),
        ({"state": "failed", "error": {"code": "worker_died", "message": "it died", "status": 500}}, 1, "it died"),
        ({"state": "canceled"}, 2, "was canceled"),
    ],
)
def test_the_exit_code_is_that_of_the_job(
    capsys: pytest.CaptureFixture[str], ended: dict[str, Any], code: int, message: str
):
    with serving(record(**ended), lambda call: call.reply(b"", 204), record(**ended)) as server:
        assert main(["jobs", "watch", JOB, "--url", server.url]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_a_job_that_streamed_no_words_is_printed_at_the_end(capsys: pytest.CaptureFixture[str]):
    with serving(record(), lambda call: call.reply(b"", 204), record()) as server:
        assert main(["jobs", "watch", JOB, "--url", server.url]) == 0
    assert capsys.readouterr().out == "bin blue\n"


def submitted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `viseme jobs submit` and return what it sent."""
    with serving(lambda call: call.reply({"id": JOB}, 202)) as server:
        assert main(["jobs", "submit", *arguments, "--url", server.url]) == 0
    assert capsys.readouterr().out == f"{JOB}\n"
    return server.calls[0]


def test_a_video_is_sent_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mp4").write_bytes(VIDEO)
    options = ["--face", "1", "--nbest", "3", "--exact", "--idempotency-key", "k", "--webhook", "https://h/x"]
    call = submitted([str(tmp_path / "a.mp4"), *options], capsys)
    assert (call.body, call.headers["Content-Type"]) == (VIDEO, "video/mp4")
    assert json.loads(call.headers["X-Amzn-SageMaker-Custom-Attributes"]) == {"nbest": 3, "exact": True, "face": 1}
    assert (call.headers["Idempotency-Key"], call.headers["X-Webhook-Url"]) == ("k", "https://h/x")


def test_a_video_is_sent_in_json_with_phrases(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mp4").write_bytes(VIDEO)
    (tmp_path / "phrases.txt").write_text("yes\nno\n")
    call = submitted([str(tmp_path / "a.mp4"), "--phrases", str(tmp_path / "phrases.txt")], capsys)
    body = json.loads(call.body)
    assert (body["phrases"], base64.b64decode(body["video"])) == (["yes", "no"], VIDEO)


def test_a_face_and_audio_are_sent_in_base64(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job_bodies, "ENCODED_BYTES", 3000)  # several parts
    (tmp_path / "face.mp4").write_bytes(VIDEO)
    (tmp_path / "audio.wav").write_bytes(VIDEO[::-1])
    options = [
        "--checkpoint",
        "a",
        "--checkpoint",
        "b",
        "--pads",
        "0",
        "20",
        "0",
        "0",
        "--loop",
        "restart",
        "--face",
        "2",
    ]
    call = submitted([str(tmp_path / "face.mp4"), str(tmp_path / "audio.wav"), *options], capsys)
    assert call.headers["Content-Type"] == "application/json"
    fields = json.loads(call.body)
    assert base64.b64decode(fields.pop("face")) == VIDEO
    assert base64.b64decode(fields.pop("audio")) == VIDEO[::-1]
    options_sent = {"models": ["a", "b"], "pads": [0, 20, 0, 0], "loop": "restart", "face_index": 2}
    assert fields == {"task": "lipsync"} | options_sent


def test_inputs_elsewhere_are_named(capsys: pytest.CaptureFixture[str]):
    fields = json.loads(submitted(["https://host/a.mp4", "s3://bucket/b c.wav"], capsys).body)
    assert fields == {
        "task": "lipsync",
        "face_url": "https://host/a.mp4",
        "s3_bucket": "bucket",
        "s3_audio_key": "b c.wav",
    }
    fields = json.loads(submitted(["s3://b/f.mp4", "s3://b/a.wav", "--speaker", "12:320,180.5"], capsys).body)
    assert fields["active_speaker"] == {"frame": 12, "point": [320, 180.5]}
    assert json.loads(submitted(["s3://bucket/a.mp4"], capsys).body) == {"s3_bucket": "bucket", "s3_video_key": "a.mp4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "none.mp4"], "none.mp4: no such file"),
        (["submit", "a", "b", "c"], "3 inputs; expected"),
        (["submit", "https://h/a", "--parity"], "--parity is an option of lip sync"),
        (["submit", "https://h/a", "https://h/b", "--nbest", "2"], "--nbest is an option of lip reading"),
        (["submit", "s3://a/b", "s3://c/d"], "expected a file in the bucket a"),
        (["submit", "s3://a"], "expected s3://bucket/key"),
        (["list", "--url", "ftp://host"], "--url 'ftp://host'"),
        (["show", JOB, "--attempt", "1"], "expected --log as well"),
        (["list", "--state", "lost"], "'queued', 'starting'"),
        (["list", "--ca-file", "/nonexistent"], "--ca-file /nonexistent: cannot be read"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["jobs", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_an_output_is_never_written_outside_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with serving(record(outputs=[output_of(VIDEO, "../a.mp4")])) as server:
        assert main(["jobs", "download", JOB, "-o", str(tmp_path / "made"), "--url", server.url]) == 1
    assert "expected the name of a file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_that_of_the_last_attempt_that_ended(capsys: pytest.CaptureFixture[str]):
    attempts = [{"number": 1, "ended_at": "2026-11-30T00:00:00Z"}, {"number": 2, "ended_at": None}]
    with serving(record(attempts=attempts), lambda call: call.reply(b"a line\n")) as server:
        assert main(["jobs", "show", JOB, "--log", "--url", server.url]) == 0
    assert capsys.readouterr().out == "a line\n"
    assert server.calls[1].path == f"/v1/jobs/{JOB}/logs/1"
    with serving(record(attempts=attempts[1:]), lambda call: call.reply(b"so far\n")) as server:
        assert main(["jobs", "show", JOB, "--log", "--url", server.url]) == 0
    assert server.calls[1].path == f"/v1/jobs/{JOB}/logs/2"
    with serving(record(state="queued")) as server:
        assert main(["jobs", "show", JOB, "--log", "--url", server.url]) == 2


def test_canceling_prints_the_record(capsys: pytest.CaptureFixture[str]):
    with serving(record(state="canceled")) as server:
        assert main(["jobs", "cancel", JOB, "--url", server.url]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "canceled"
    assert [(call.command, call.path) for call in server.calls] == [("DELETE", f"/v1/jobs/{JOB}")]


def test_the_end_of_a_lip_sync_names_its_videos(capsys: pytest.CaptureFixture[str]):
    done = record(
        task="unknown", result={"status": "success"}, outputs=[output_of(VIDEO, "a.mp4"), output_of(VIDEO, "b.mp4")]
    )
    with serving(done, lambda call: call.reply(b"", 204), done) as server:
        assert main(["jobs", "watch", JOB, "--url", server.url]) == 0
    assert capsys.readouterr().out == "a.mp4\nb.mp4\n"
