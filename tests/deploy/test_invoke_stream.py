"""deploy.invoke --stream: against our own server's route, and against streams that break off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.endpoint_calls import describe
from support.live_app import LiveApp, live_app, make_settings
from support.quiet_http import serving

from container.app import Server
from container.http.event_stream import EVENT_STREAM, encode_exception, encode_message, encode_part
from deploy import invoke
from deploy.invoke import main

CALL = ["--endpoint-name", "viseme", "--stream"]
RUNTIME_URL = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    with live_app(Server(make_settings(tmp_path_factory.mktemp("data"))), with_aws_routes=True) as running:
        yield running


@pytest.fixture(autouse=True)
def ready(script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "BotoAws", lambda region: script.aws)


@pytest.fixture
def endpoint(script, app: LiveApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real-time endpoint whose container is our server."""
    monkeypatch.setenv(RUNTIME_URL, app.http(""))
    script.expect("sagemaker", "DescribeEndpoint", {"EndpointName": "viseme"}, describe())


def request_file(folder: Path, command: bytes) -> str:
    path = folder / "clip.mp4"
    path.write_bytes(command)
    return str(path)


def test_words_are_written_to_stdout(endpoint: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert main([request_file(tmp_path, b"parts"), *CALL]) == 0
    assert capfd.readouterr().out == "parts0parts1parts2parts\n"


def test_a_video_is_written_to_a_file(endpoint: None, tmp_path: Path):
    out = tmp_path / "out.mp4"
    assert main([request_file(tmp_path, b"video"), *CALL, "--accept", "video/mp4", "-o", str(out)]) == 0
    assert out.stat().st_size == 5 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_an_error_before_the_answer(endpoint: None, script, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    out = tmp_path / "out"
    assert main([request_file(tmp_path, b"parts"), *CALL, "--accept", "image/png", "-o", str(out)]) == 1
    assert "unsupported_content_type" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_output_that_cannot_be_written_costs_no_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No call to AWS is expected."""
    out = tmp_path / "missing" / "out.json"
    assert main([request_file(tmp_path, b"parts"), *CALL, "-o", str(out)]) == 2
    assert f"--output {out}: No such file or directory" in capsys.readouterr().err


def test_a_pipe_or_a_link_to_one_is_written_to_and_stays(endpoint: None, tmp_path: Path):
    """As /dev/stdout is."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        assert main([request_file(tmp_path, b"parts"), *CALL, "-o", str(tmp_path / "link")]) == 0
        assert reader.communicate()[0] == b"parts0parts1parts2parts"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()


def test_an_asynchronous_endpoint_streams_nothing(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://videos/results/"}}}
    script.expect("sagemaker", "DescribeEndpoint", {"EndpointName": "viseme"}, describe(**config))
    assert main([request_file(tmp_path, b"parts"), *CALL]) == 2
    assert "viseme is asynchronous; only a real-time endpoint streams" in capsys.readouterr().err


@contextmanager
def runtime_that_sends(body: bytes, *, is_whole: bool = True) -> Iterator[str]:
    """Yield the URL of a runtime that answers every call with these bytes. is_whole: or closes the connection early."""

    class Runtime(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", EVENT_STREAM)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if is_whole else b""))

    with serving(Runtime) as url:
        yield url


ONE = encode_part(b'{"words":["BIN"]}\n')
BROKEN = encode_exception("ModelStreamError", {"Message": "the connection was reset", "ErrorCode": "StreamBroken"})
INTERNAL = encode_exception("InternalStreamFailure", {"Message": "try again"})
DAMAGED = ONE[:-1] + bytes([ONE[-1] ^ 1])


@pytest.mark.parametrize(
    ("body", "is_whole", "message"),
    [
        (ONE + BROKEN, True, "viseme: the connection was reset"),
        (ONE + INTERNAL, True, "InternalStreamFailure: try again"),
        (ONE + DAMAGED, True, "the answer broke off: Checksum mismatch"),
        (ONE, False, "the answer broke off: "),
    ],
)
def test_a_stream_that_breaks_off(
    script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    body: bytes,
    is_whole: bool,
    message: str,
):
    """What arrived before is written; the exit code says that it is not all."""
    script.expect("sagemaker", "DescribeEndpoint", {"EndpointName": "viseme"}, describe())
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    with runtime_that_sends(body, is_whole=is_whole) as url:
        monkeypatch.setenv(RUNTIME_URL, url)
        assert main([request_file(tmp_path, b"parts"), *CALL]) == 1
    captured = capfd.readouterr()
    assert captured.out == '{"words":["BIN"]}\n'
    assert message in captured.err


def test_events_of_other_kinds_are_skipped(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    other = encode_message({":message-type": "event", ":event-type": "Usage"}, json.dumps({"n": 1}).encode())
    script.expect("sagemaker", "DescribeEndpoint", {"EndpointName": "viseme"}, describe())
    with runtime_that_sends(other + ONE) as url:
        monkeypatch.setenv(RUNTIME_URL, url)
        assert main([request_file(tmp_path, b"parts"), *CALL]) == 0
    assert capfd.readouterr().out == '{"words":["BIN"]}\n'


def test_pieces_are_written_as_they_arrive():
    """Another process reads the first line while the answer is not complete."""
    code = (
        "import time\nfrom deploy.invoke import write_stdout\n"
        "def pieces():\n    yield b'first\\n'\n    input()\n    yield b'second'\n"
        "write_stdout(pieces())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"
        rest, _ = process.communicate(b"\n")
    assert rest == b"second\n"
