"""The routes over a real socket, with a worker that holds no model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from support.fake_worker import run_fake
from support.waiting import PATIENCE_S, wait_until

from container import app as app_module
from container.app import Server, make_app
from container.http import request_body
from container.http.request_body import MAX_ASYNC_BODY_BYTES, MAX_BODY_BYTES, limits_of
from container.server import http_config
from container.worker import pool as pool_module
from container.worker import process as process_module
from inference.locked_folders import SUFFIX
from inference.requests.deadlines import ASYNC_DEADLINE_S, ASYNC_HEADER
from inference.settings import Settings

ASYNC = {ASYNC_HEADER: "11111111-2222-3333-4444-555555555555"}
VIDEO = {"content-type": "video/mp4"}


class RunningApp:
    """A server in a thread of this process, so that tests can reach into it."""

    def __init__(self, server: Server, http: uvicorn.Server) -> None:
        self.server = server
        self._http = http

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._http.servers[0].sockets[0].getsockname()[:2]
        return host, port

    def post(self, body: object, **headers: str) -> httpx.Response:
        url = "http://{}:{}/invocations".format(*self.address)
        return httpx.post(url, content=body, headers=VIDEO | headers, timeout=PATIENCE_S)  # type: ignore[arg-type]

    def connect(self, *lines: str, path: str = "/invocations") -> socket.socket:
        """Open a connection and send these header lines of a POST."""
        one = socket.create_connection(self.address, timeout=PATIENCE_S)
        head = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: video/mp4", *lines, "", ""]
        one.sendall("\r\n".join(head).encode())
        return one

    def wait_until_free(self) -> None:
        """Wait until every place in the queue is free, and everything is sent."""
        wait_until(lambda: self.server.n_in_flight == 0)

    def wait_until_unqueued(self) -> None:
        """Wait until every place in the queue is free."""
        wait_until(lambda: self.server.pool.n_in_flight == 0)


@contextmanager
def run_app(settings: Settings) -> Iterator[RunningApp]:
    server = Server(settings)
    app = make_app(server, with_aws_routes=True)
    http = uvicorn.Server(http_config(app, settings.model_copy(update={"port": 0})))
    thread = threading.Thread(target=asyncio.run, args=(http.serve(),))
    thread.start()
    try:
        wait_until(lambda: http.started or not thread.is_alive())
        yield RunningApp(server, http)
    finally:
        http.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, queue_size=2)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(process_module, "run_worker", run_fake)


def leftover_bodies() -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).rglob("*") if "viseme-body-" in str(path)]


def read_answer(one: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read until the server closes the connection. Returns: status, headers and body."""
    whole = b"".join(iter(lambda: one.recv(1 << 16), b""))
    head, _, body = whole.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def test_leftovers_of_a_killed_server_are_deleted_at_the_start(settings: Settings, caplog: pytest.LogCaptureFixture):
    leftover = Path(tempfile.gettempdir(), f"viseme-body-a{SUFFIX}")
    leftover.mkdir()
    with caplog.at_level(logging.INFO), run_app(settings):
        assert not leftover.exists()
    (line,) = [record for record in caplog.records if "leftover folders" in record.message]
    assert line.folders == 1


def test_a_slow_body_is_rejected(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with run_app(settings) as app:
        monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.3)
        with app.connect("content-length: 1000") as slow:
            slow.sendall(b"a few bytes")
            status, headers, body = read_answer(slow)
        assert status == 408
        assert json.loads(body)["error"]["code"] == "deadline_exceeded"
        assert "did not arrive within 0.3 s" in json.loads(body)["error"]["message"]
        assert headers["connection"] == "close"
        app.wait_until_free()
        wait_until(lambda: leftover_bodies() == [])
        monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", PATIENCE_S)
        assert app.post(b"quick").content == b"quick"


def test_a_slow_body_on_an_aws_route_is_a_model_error(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.3)
    with run_app(settings) as app, app.connect("content-length: 9", path="/endpoints/viseme/invocations") as slow:
        status, headers, body = read_answer(slow)
    assert (status, headers["connection"]) == (424, "close")
    assert json.loads(body)["OriginalStatusCode"] == 408


def test_slow_callers_occupy_no_place_of_others(settings: Settings):
    with run_app(settings) as app, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(app.connect("content-length: 5")) for _ in range(12)]
        wait_until(lambda: app.server._bodies.n_arriving == 12)
        assert app.server.pool.n_in_flight == 0
        assert app.post(b"quick").content == b"quick"
        slow[0].sendall(b"slow\n")
        assert slow[0].recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"


def test_a_body_under_the_least_rate_is_rejected(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "BODY_GRACE_S", 0.5)
    with run_app(settings) as app, app.connect("content-length: 1000000", "connection: close") as slow:
        slow.sendall(bytes(20_000))  # what arrived earlier does not count
        status, headers, body = read_answer(slow)
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["error"]["code"] == "deadline_exceeded"
        assert "too slowly: under 10000 bytes in 0.5 s" in json.loads(body)["error"]["message"]
        wait_until(lambda: leftover_bodies() == [])


def test_a_body_over_the_least_rate_may_take_longer_than_the_grace(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "BODY_GRACE_S", 1.0)
    monkeypatch.setattr(request_body, "MIN_BODY_BYTES", 10)
    with run_app(settings) as app, app.connect("content-length: 86", "connection: close") as slow:
        slow.sendall(b"quick\n")
        for _ in range(8):
            time.sleep(0.2)
            slow.sendall(bytes(10))
        assert read_answer(slow)[0] == 200


def test_more_bodies_than_may_arrive_at_once_are_refused(settings: Settings):
    with run_app(settings.model_copy(update={"max_uploads": 2})) as app, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(app.connect("content-length: 5")) for _ in range(2)]
        wait_until(lambda: app.server._bodies.n_arriving == 2)
        refused = app.post(b"quick")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        slow[0].close()
        wait_until(lambda: app.server._bodies.n_arriving == 1)
        assert app.post(b"quick").content == b"quick"


def test_the_bytes_of_bodies_are_bounded_and_released(settings: Settings):
    with run_app(settings.model_copy(update={"max_upload_bytes": 1000})) as app:
        with app.connect("content-length: 990"):
            wait_until(lambda: app.server._bodies.n_bytes == 990)
            for body in (b"x" * 11, iter([b"x" * 11])):  # declared, and not
                refused = app.post(body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert app.post(b"quick").content == b"quick"
        wait_until(lambda: app.server._bodies.n_bytes == 0)


def test_a_full_queue_refuses_before_the_body_arrives(settings: Settings):
    with run_app(settings) as app, contextlib.ExitStack() as stack:
        running = [stack.enter_context(app.connect("content-length: 5")) for _ in range(3)]
        for one in running:
            one.sendall(b"sleep")
        wait_until(lambda: app.server.pool.n_in_flight == 3)
        with app.connect("content-length: 1000000", "expect: 100-continue") as late:
            assert late.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 503"
            rest = b""
            while part := late.recv(1 << 16):  # until it is closed
                rest += part
            assert b"connection: close" in rest.lower()
            assert app.server._bodies.n_arriving == 0
        running[0].close()
        wait_until(lambda: app.server.pool.n_in_flight == 2)


def test_unread_answers_occupy_no_place(settings: Settings):
    with run_app(settings) as app, contextlib.ExitStack() as stack:
        unread = []
        for command in (b"video", b"burst") * 3:
            accept = "video/mp4" if command == b"video" else "application/x-ndjson"
            unread.append(stack.enter_context(app.connect(f"accept: {accept}", "content-length: 5")))
            unread[-1].sendall(command)
            assert unread[-1].recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        app.wait_until_unqueued()
        assert app.server._answers.n_sending == len(unread)
        assert app.post(b"quick").content == b"quick"


def test_one_unread_answer_too_many_aborts_the_one_that_waits_longest(settings: Settings):
    with run_app(settings.model_copy(update={"max_answers": 2})) as app, contextlib.ExitStack() as stack:
        unread = []
        for _ in range(3):
            unread.append(stack.enter_context(app.connect("accept: video/mp4", "content-length: 5")))
            unread[-1].sendall(b"video")
            assert unread[-1].recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        wait_until(lambda: app.server._answers.n_sending == 2)
        assert app.post(b"video", accept="video/mp4").content == bytes(5 << 20)
        assert len(b"".join(iter(lambda: unread[0].recv(1 << 20), b""))) < 5 << 20


def test_a_slow_reader_gets_a_whole_stream_after_the_worker_is_free(settings: Settings):
    with run_app(settings) as app:
        with app.connect("accept: application/x-ndjson", "content-length: 5", "connection: close") as slow:
            slow.sendall(b"burst")
            app.wait_until_unqueued()
            assert app.post(b"quick").content == b"quick"
            assert read_answer(slow)[2].count(b"\0") == 6 << 20
        wait_until(lambda: app.server.n_in_flight == 0)


def test_a_large_answer_in_memory_counts_while_it_is_sent(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """Its worker is free meanwhile, and its deadline is that of files."""
    body = b"x" * (8 << 20)  # which the worker returns
    monkeypatch.setattr(app_module, "FILE_SEND_TIMEOUT_S", 1.5)
    with run_app(settings) as app:
        assert app.post(body).content == body
        with app.connect(f"content-length: {len(body)}") as unread:
            unread.sendall(body)
            assert unread.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            app.wait_until_unqueued()
            assert app.server._answers.n_sending == app.server.n_in_flight == 1
            assert app.post(b"quick").content == b"quick"
            app.wait_until_free()
            assert len(b"".join(iter(lambda: unread.recv(1 << 20), b""))) < len(body)
        counted = app.server.metrics.render().decode()
    assert 'viseme_requests_total{route="invocations",status="200"} 2.0' in counted
    assert 'viseme_requests_total{route="invocations",status="499"} 1.0' in counted


def test_a_stream_that_fails_is_incomplete_and_writes_one_line(settings: Settings, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), run_app(settings) as app:
        app.server.settings = settings.model_copy(update={"deadline_s": 1.0})
        with app.connect("accept: application/x-ndjson", "content-length: 5") as one:
            one.sendall(b"flood")
            status, headers, body = read_answer(one)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert b'"code": "deadline_exceeded"' in body[-1000:]
    assert not body.endswith(b"0\r\n\r\n")  # the mark of a complete answer
    assert "ASGI" not in caplog.text
    assert "Traceback" not in caplog.text
    (line,) = [record for record in caplog.records if getattr(record, "code", None) == "deadline_exceeded"]
    assert line.message == "request"


def test_an_unread_stream_is_aborted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(app_module, "STREAM_GRACE_S", 0.0)
    with run_app(settings) as app:
        worker = app.server.pool._workers[0].process.pid
        app.server.settings = settings.model_copy(update={"deadline_s": 4.0})  # the first part takes far less
        with app.connect("accept: application/x-ndjson", "content-length: 5") as unread:
            unread.sendall(b"flood")
            assert unread.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            app.wait_until_free()
            app.server.settings = settings
            assert app.post(b"quick").content == b"quick"
            wait_until(lambda: "it was not read in time" in caplog.text)
        assert "Traceback" not in caplog.text
        assert app.server.pool._workers[0].process.pid == worker  # it dropped the job without being killed
        assert app.server.pool.n_restarts == 0


def test_a_deadline_is_kept_and_frees_the_worker(settings: Settings):
    with run_app(settings) as app:
        worker = app.server.pool._workers[0].process.pid
        app.server.settings = settings.model_copy(update={"deadline_s": 0.3})
        late = app.post(b"sleep")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        app.server.settings = settings
        assert app.post(b"quick").content == b"quick"
        assert app.server.pool._workers[0].process.pid == worker


def test_a_worker_that_hangs_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "CANCEL_TIMEOUT_S", 0.2)
    with run_app(settings) as app:
        pool = app.server.pool
        hung = pool._workers[0].process.pid
        os.kill(hung, signal.SIGSTOP)
        app.server.settings = settings.model_copy(update={"deadline_s": 0.3})
        late = app.post(b"quick")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        app.server.settings = settings
        wait_until(lambda: pool.n_restarts == 1 and pool.is_ready)
        assert app.post(b"quick").content == b"quick"
        assert pool._workers[0].process.pid != hung


def test_every_caller_needs_the_token(tmp_path: Path):
    settings = Settings.from_env({"VISEME_TOKEN": "open sesame", "VISEME_DATA_DIR": str(tmp_path)})
    with run_app(settings) as app:
        for headers in ({}, {"authorization": "Bearer open"}, {"authorization": "Bearer open sesame!"}):
            unknown = app.post(b"quick", **headers)
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (403, "access_denied")
        assert app.post(b"quick", authorization="Bearer open sesame").status_code == 200


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every write to a body's file fail as on a full disk, including the one on closing."""
    open_path = Path.open

    def open_full(path: Path, mode: str = "r", **kwargs):
        file = open_path(path, mode, **kwargs)
        if path.name == "body" and mode == "xb":
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, file.fileno())
            os.close(full)
        return file

    monkeypatch.setattr(Path, "open", open_full)


@pytest.mark.parametrize("n_bytes", [5, 1 << 20])
def test_a_full_disk_is_overload(settings: Settings, monkeypatch: pytest.MonkeyPatch, n_bytes: int):
    with run_app(settings) as app:
        with monkeypatch.context() as patch:
            on_a_full_disk(patch)
            answer = app.post(b"x" * n_bytes)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"
        assert "no disk space" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) > 0
        app.wait_until_free()
        wait_until(lambda: leftover_bodies() == [])
        assert app.post(b"quick").content == b"quick"


def test_no_folder_for_a_body_is_overload(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with run_app(settings) as app:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        assert app.post(b"quick").json()["error"]["code"] == "overloaded"


def test_a_body_that_grows_past_the_limit_unannounced_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "MAX_BODY_BYTES", 1000)
    with run_app(settings) as app:
        answer = app.post(iter([b"x" * 600] * 2))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "media_too_large")
        wait_until(lambda: leftover_bodies() == [])


def test_only_on_sagemaker_is_a_request_asynchronous(settings: Settings):
    on_sagemaker = settings.model_copy(update={"on_sagemaker": True})
    usual = limits_of({}, settings)
    assert (usual.body_bytes, usual.deadline_s) == (MAX_BODY_BYTES, settings.deadline_s)
    assert limits_of(ASYNC, settings) == usual
    assert limits_of({}, on_sagemaker) == replace(usual, sync_deadline_s=settings.deadline_s)
    lifted = limits_of(ASYNC, on_sagemaker)
    assert lifted.sync_deadline_s == lifted.deadline_s
    assert (lifted.body_bytes, lifted.body_timeout_s) == (MAX_ASYNC_BODY_BYTES, ASYNC_DEADLINE_S)
    assert lifted.deadline_s == ASYNC_DEADLINE_S


def test_lip_sync_may_take_as_long_as_its_jobs_unless_a_deadline_is_set(settings: Settings):
    assert limits_of({}, settings).sync_deadline_s == settings.job_deadline_s == 7200
    assert limits_of({}, settings.model_copy(update={"deadline_s": 90.0})).sync_deadline_s == 90


def test_a_worker_may_change_the_deadline(settings: Settings):
    with run_app(settings) as app:
        app.server.settings = settings.model_copy(update={"deadline_s": 0.3})
        assert app.post(b"longer").content == b"longer"


def test_a_video_is_sent_from_disk_and_deleted_with_its_request(settings: Settings):
    with run_app(settings) as app:
        answer = app.post(b"video", accept="video/mp4")
        assert answer.content == bytes(5 << 20)
        assert (answer.headers["content-type"], answer.headers["content-length"]) == ("video/mp4", str(5 << 20))
        app.wait_until_free()
        wait_until(lambda: leftover_bodies() == [])


def test_a_caller_that_disconnects_after_the_last_byte_was_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    to_thread = asyncio.to_thread

    async def slowly(*call: Any, **options: Any) -> Any:
        await asyncio.sleep(0.2)
        return await to_thread(*call, **options)

    with run_app(settings) as app:
        monkeypatch.setattr(asyncio, "to_thread", slowly)
        for _ in range(2):
            with app.connect("accept: video/mp4", "content-length: 5") as one:
                one.sendall(b"video")
                head = b""
                while b"\r\n\r\n" not in head:
                    head += one.recv(1)
                left = 5 << 20
                while left:
                    left -= len(one.recv(left))
        app.wait_until_free()
        counted = app.server.metrics.render().decode()
        assert 'viseme_requests_total{route="invocations",status="200"} 2.0' in counted
        assert 'status="499"' not in counted


def test_an_unread_video_is_aborted_and_does_not_block_the_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app_module, "FILE_SEND_TIMEOUT_S", 1.5)
    with run_app(settings) as app, app.connect("accept: video/mp4", "content-length: 5") as unread:
        unread.sendall(b"video")
        assert unread.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        app.wait_until_unqueued()
        assert app.post(b"quick").content == b"quick"
        assert app.server.n_in_flight == 1  # for the server, which must not exit before
        wait_until(lambda: app.server.n_in_flight == 0)
        wait_until(lambda: leftover_bodies() == [])
        taken = b"".join(iter(lambda: unread.recv(1 << 16), b""))
        assert len(taken) < 5 << 20


@pytest.mark.parametrize(("on_sagemaker", "status"), [(False, 413), (True, 200)])
def test_the_asynchronous_header_of_any_caller_lifts_no_limit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, on_sagemaker: bool, status: int
):
    monkeypatch.setattr(request_body, "MAX_BODY_BYTES", 1000)
    with run_app(settings.model_copy(update={"on_sagemaker": on_sagemaker})) as app:
        assert app.post(b"quick\n" + b"x" * 2000, **ASYNC).status_code == status


def test_an_unsupported_accept_is_rejected_before_the_body_is_read(settings: Settings):
    with run_app(settings) as app, app.connect("accept: image/png", "content-length: 1000") as unsent:
        assert unsent.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 415"
        app.wait_until_free()


def test_transcriptions_do_not_use_the_accept_header(settings: Settings):
    headers = ("accept: image/png", "content-length: 1", "connection: close")
    with run_app(settings) as app, app.connect(*headers, path="/v1/audio/transcriptions") as one:
        one.sendall(b"x")
        status, _, body = read_answer(one)
    assert (status, body) == (200, b"transcriptions")
