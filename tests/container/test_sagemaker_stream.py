"""Sessions over SageMaker's bidirectional stream: AWS's own SDK against a stand-in of its HTTP/2 API before our server.

The SDK needs Python 3.12, so these tests run it in an environment of its own; without it they are skipped. The rest
needs no SDK.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from support.certificates import make_pair
from support.environments import environment
from support.live_app import LiveApp, live_app, make_settings
from support.video_files import make_wav

from container import sagemaker_stream
from container.app import Server
from container.cli import main
from container.client import LiveClient
from container.rejections import RequestRejected
from container.sagemaker_stream import EndpointAddress, SageMakerStream
from deploy import region

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "support" / "sagemaker_http2.py"
SCENARIOS = ROOT / "tests" / "support" / "sagemaker_live_run.py"
PATIENCE_S = 180.0  # a guard against hanging


@pytest.fixture(scope="module")
def live_python() -> Path:
    return environment("sagemaker-live")


@dataclass
class StandIn:
    """AWS in front of a container. env: points AWS's tools at it."""

    python: Path
    app: LiveApp
    env: dict[str, str]
    log: Path

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the environment with the SDK."""
        return subprocess.run(
            [str(self.python), *command],
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def scenario(self, name: str, **env: str) -> dict[str, Any]:
        run = self.run(str(SCENARIOS), name, env=env)
        assert run.returncode == 0, run.stderr + self.log.read_text()
        return json.loads(run.stdout)

    def events(self) -> list[dict[str, Any]]:
        """Return the kinds of the events that the caller sent."""
        return [json.loads(line) for line in self.log.read_text().splitlines()[1:] if line.startswith("{")]


@pytest.fixture(scope="module")
def stand_in(live_python: Path, avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("aws")
    pair, log = make_pair(folder), folder / "stand-in.log"
    with live_app(Server(make_settings(folder, avatars=avatar_folder.parent))) as app, log.open("w") as output:
        command = [str(live_python), str(STAND_IN), str(pair.cert), str(pair.key), app.ws("")]
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                env = os.environ | {
                    "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME_HTTP2": f"https://localhost:{port_of(process, log)}",
                    "SSL_CERT_FILE": str(pair.cert),  # read by AWS's HTTP library
                    "AWS_ACCESS_KEY_ID": "testing",
                    "AWS_SECRET_ACCESS_KEY": "testing",
                }
                yield StandIn(live_python, app, env, log)
            finally:
                process.terminate()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    give_up = time.monotonic() + PATIENCE_S
    while not (lines := log.read_text()).endswith("\n"):
        assert process.poll() is None, lines
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return int(lines.splitlines()[0])


def test_speech_and_an_interrupt(stand_in: StandIn):
    n_before = len(stand_in.events())
    found = stand_in.scenario("speak")
    assert found["avatar"] == "drawn"
    assert found["is_same_audio"]
    assert found["n_frames"] == 25
    assert 2 <= found["n_interrupted"] < 25
    assert found["largest"] > 4096  # so that frames arrived in parts
    events = stand_in.events()[n_before:]
    assert {event["CompletionState"] for event in events} == {"COMPLETE"}
    assert [(event["DataType"], event["n_bytes"]) for event in events] == [
        ("BINARY", 32_000),
        ("UTF8", len('{"type": "flush"}')),
        ("BINARY", 32_000),
        ("UTF8", len('{"type": "flush"}')),
        ("UTF8", len('{"type": "interrupt"}')),
    ]


def test_a_message_is_not_lost_by_waiting_for_less(stand_in: StandIn):
    found = stand_in.scenario("wait")
    assert found["n_timeouts"] == 5
    assert len(found["numbers"]) >= 3
    assert found["numbers"] == list(range(found["numbers"][0], found["numbers"][0] + len(found["numbers"])))


def test_errors_of_the_container_of_aws_and_of_the_session(stand_in: StandIn):
    found = stand_in.scenario("errors")
    assert found["viseme nobody"][:2] == ["RequestRejected", "avatar_not_found"]
    assert "'nobody': no such name" in found["viseme nobody"][2]
    assert found["broken drawn"] == ["RequestRejected", "InternalServerError", "try again"]
    assert found["closed"][:2] == ["RequestRejected", "closed"]


def test_an_endpoint_that_cannot_be_reached(stand_in: StandIn):
    [kind, _, message] = stand_in.scenario("connect", AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME_HTTP2="https://localhost:1")[
        "error"
    ]
    assert kind == "ConnectionError"
    assert "viseme in eu-west-1" in message
    assert "refused" in message


def test_without_credentials(stand_in: StandIn, tmp_path: Path):
    [kind, code, message] = stand_in.scenario(
        "connect",
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=str(tmp_path / "none"),
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"),
    )["error"]
    assert (kind, code) == ("RequestRejected", "credentials")
    assert "no AWS credentials" in message


def test_a_certificate_that_is_not_trusted(stand_in: StandIn, tmp_path: Path):
    other = make_pair(tmp_path)
    [kind, _, message] = stand_in.scenario("connect", SSL_CERT_FILE=str(other.cert))["error"]
    assert kind == "ConnectionError"
    assert "TLS" in message


def test_the_command_records_a_video(stand_in: StandIn, tmp_path: Path):
    wav, out = tmp_path / "speech.wav", tmp_path / "out.mp4"
    wav.write_bytes(make_wav(1.5))
    command = ["avatar", "speak", "drawn", str(wav), "-o", str(out), "--endpoint", "viseme", "--region", "eu-west-1"]
    run = stand_in.run("-c", f"import sys; from container.cli import main; sys.exit(main({command!r}))")
    assert run.returncode == 0, run.stderr + stand_in.log.read_text()
    assert "38 frames, 1.52 s, 320x240" in run.stderr
    with av.open(out) as media:
        assert sum(1 for _ in media.decode(video=0)) == 38


def test_the_command_reports_an_error(stand_in: StandIn, tmp_path: Path):
    wav, out = tmp_path / "speech.wav", tmp_path / "out.mp4"
    wav.write_bytes(make_wav(0.5))
    command = ["avatar", "speak", "nobody", str(wav), "-o", str(out), "--endpoint", "viseme", "--region", "eu-west-1"]
    run = stand_in.run("-c", f"import sys; from container.cli import main; sys.exit(main({command!r}))")
    assert run.returncode == 1
    assert "viseme: viseme: avatar 'nobody': no such name" in run.stderr
    assert "(avatar_not_found)" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


def test_a_container_that_is_going_down(live_python: Path, stand_in: StandIn, avatar_folder: Path, tmp_path: Path):
    """It refuses the WebSocket handshake; SageMaker passes that on as ModelError."""
    pair = make_pair(tmp_path)
    server = Server(make_settings(tmp_path, avatars=avatar_folder.parent))
    with live_app(server) as app, (tmp_path / "log").open("w") as output:
        app.call(server.drain)
        command = [str(live_python), str(STAND_IN), str(pair.cert), str(pair.key), app.ws("")]
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                url = f"https://localhost:{port_of(process, tmp_path / 'log')}"
                env = {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME_HTTP2": url, "SSL_CERT_FILE": str(pair.cert)}
                [kind, code, _] = stand_in.scenario("connect", **env)["error"]
            finally:
                process.terminate()
    assert (kind, code) == ("RequestRejected", "not_ready")


# Without the SDK


def test_without_the_sdk_the_error_names_the_extra_and_the_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "aws_sdk_sagemaker_runtime_http2", None)
    with pytest.raises(ModuleNotFoundError, match=r"extra 'sagemaker-live'.*needs Python 3\.12 or newer"):
        LiveClient("sagemaker://viseme?region=us-east-1")


def test_the_command_without_the_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setitem(sys.modules, "aws_sdk_sagemaker_runtime_http2", None)
    (tmp_path / "speech.wav").write_bytes(make_wav(0.5))
    arguments = ["avatar", "speak", "starter", str(tmp_path / "speech.wav"), "-o", str(tmp_path / "out.mp4")]
    assert main([*arguments, "--endpoint", "viseme", "--region", "us-east-1"]) == 2
    assert "--endpoint viseme: live sessions over SageMaker need" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "env", "wanted"),
    [
        (
            "sagemaker://viseme?region=eu-west-1",
            {"AWS_DEFAULT_REGION": "us-east-1"},
            EndpointAddress("viseme", "eu-west-1"),
        ),
        ("sagemaker://My-Viseme", {"AWS_DEFAULT_REGION": "eu-west-1"}, EndpointAddress("My-Viseme", "eu-west-1")),
        (
            "sagemaker://viseme",
            {"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "us-east-1"},
            EndpointAddress("viseme", "eu-west-3"),
        ),
    ],
)
def test_addresses(url: str, env: dict[str, str], wanted: EndpointAddress, monkeypatch: pytest.MonkeyPatch):
    forget_regions(monkeypatch)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert EndpointAddress.parse(url) == wanted


def test_the_region_is_that_of_the_deployments_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert sagemaker_stream.REGION_VARIABLES == region.REGION_VARIABLES
    forget_regions(monkeypatch)
    (tmp_path / "config").write_text("[profile work]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert EndpointAddress.parse("sagemaker://viseme").region == region.choose_region(None) == "eu-north-1"
    monkeypatch.setenv("AWS_PROFILE", "home")
    with pytest.raises(ValueError, match="home"):
        EndpointAddress.parse("sagemaker://viseme")


@pytest.mark.parametrize(
    ("url", "message"), [("sagemaker://", "expected"), ("sagemaker://a/b", "expected"), ("sagemaker://a", "no region")]
)
def test_invalid_addresses(url: str, message: str, monkeypatch: pytest.MonkeyPatch):
    forget_regions(monkeypatch)
    with pytest.raises(ValueError, match=message):
        EndpointAddress.parse(url)


def forget_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")


@dataclass
class Part:
    bytes_: bytes | None
    data_type: str | None = None
    completion_state: str | None = None


@dataclass
class Event:
    value: Part


class FakeStream:
    """A stream of AWS's SDK, whose messages the test chooses."""

    def __init__(self, events: list[Event | Exception | None]) -> None:
        self.input_stream = self.output_stream = self
        self.sent: list[Any] = []
        self.is_closed = False
        self._events = events

    async def await_output(self) -> None:
        """Do nothing."""

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    async def receive(self) -> Event | None:
        if not self._events:
            await asyncio.sleep(PATIENCE_S)
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    async def close(self) -> None:
        self.is_closed = True


class ServiceError(Exception):
    """Stands in for the SDK's errors."""


class FakeSdk:
    connection_errors = (ConnectionAbortedError,)
    service_error = ServiceError

    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream

    async def make_client(self, region: str) -> Any:
        return self._stream

    async def open_stream(self, client: Any, endpoint: str, query: str) -> FakeStream:
        return self._stream

    def payload_part(self, message: bytes | str) -> Any:
        return message


def open_fake(monkeypatch: pytest.MonkeyPatch, *events: Event | Exception | None) -> tuple[SageMakerStream, FakeStream]:
    fake = FakeStream(list(events))
    monkeypatch.setattr(sagemaker_stream, "Http2Sdk", lambda: FakeSdk(fake))
    return SageMakerStream(EndpointAddress("viseme", "us-east-1"), "avatar=starter", PATIENCE_S), fake


def test_parts_are_joined_to_messages(monkeypatch: pytest.MonkeyPatch):
    stream, fake = open_fake(
        monkeypatch,
        Event(Part(b"on", "BINARY", "PARTIAL")),
        Event(Part(None, "BINARY", "PARTIAL")),
        Event(Part(b"e", "BINARY", "COMPLETE")),
        Event(Part(b"two")),  # both headers are optional
        Event(Part(b'{"a', "UTF8", "PARTIAL")),
        Event(Part(b'":1}', "UTF8", "COMPLETE")),
        None,
    )
    assert [stream.recv(PATIENCE_S) for _ in range(3)] == [b"one", b"two", '{"a":1}']
    with pytest.raises(RequestRejected, match="the session is closed"):
        stream.recv(PATIENCE_S)
    stream.send("text")
    stream.close()
    stream.close()
    assert fake.sent == ["text"]
    assert fake.is_closed
    with pytest.raises(RequestRejected, match="the session is closed"):
        stream.send("text")


def test_a_timeout_keeps_the_parts_that_arrived(monkeypatch: pytest.MonkeyPatch):
    stream, fake = open_fake(monkeypatch, Event(Part(b"on", "BINARY", "PARTIAL")))
    with pytest.raises(TimeoutError, match=r"viseme: nothing for 0\.05 s"):
        stream.recv(0.05)
    stream.close()
    assert fake.is_closed


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (
            Event(Part(b'{"ModelStreamError": {"ErrorCode": "overloaded", "Message": "full"}}', "UTF8")),
            RequestRejected,
            "full",
        ),
        (ServiceError("throttled"), RequestRejected, "throttled"),
        (ConnectionAbortedError("reset"), ConnectionError, "viseme in us-east-1: reset"),
    ],
)
def test_errors_within_a_session(
    monkeypatch: pytest.MonkeyPatch, event: Event | Exception, error: type[Exception], message: str
):
    stream, _ = open_fake(monkeypatch, event)
    try:
        with pytest.raises(error, match=message):
            stream.recv(PATIENCE_S)
    finally:
        stream.close()
