"""A server that cannot be called, or not now: what the doctor says then, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.certificates import Pair, make_pair

from deploy.doctor.connection_check import advise_connection
from deploy.doctor.container_process import choose_port, started_container
from deploy.doctor.contract import ContractCheck
from deploy.doctor.findings import Finding, Outcome
from deploy.doctor.http_calls import ContainerUrl
from deploy.doctor.limits import ContractLimits
from deploy.doctor.process_check import check_start
from deploy.doctor.requests_check import Probe, check_reading
from deploy.errors import WrongRequest

ROOT = Path(__file__).parents[3]
LIMITS = ContractLimits(deadline_s=5.0, startup_s=60.0, settle_s=0.01)
PLANTED = [sys.executable, "-m", "support.planted_container"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the container's process import this repository and the tests' support."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests"))))


@contextmanager
def running(fault: str, folder: Path, token: str | None = None) -> Iterator[Probe]:
    probe = Probe(ContainerUrl("http", "127.0.0.1", choose_port(), token), LIMITS)
    with started_container([*PLANTED, fault], probe.url.port, folder / "log") as process:
        assert check_start(probe, process).outcome is Outcome.OK
        yield probe


def examine(url: ContainerUrl) -> list[Finding]:
    return list(ContractCheck(LIMITS, is_quick=True).of_url(url))


@pytest.mark.parametrize(("token", "words"), [(None, "with no token: 401"), ("wrong", "token of VISEME_TOKEN: 401")])
def test_a_token_that_is_missing_or_wrong_is_the_only_finding(token: str | None, words: str, tmp_path: Path):
    with running("NeedsToken", tmp_path, token) as probe:
        [finding] = examine(probe.url)
    assert (finding.check, finding.outcome) == ("connection", Outcome.FAILURE)
    assert words in finding.line()
    assert "set VISEME_TOKEN" in finding.fix


def test_the_token_is_sent(tmp_path: Path):
    with running("NeedsToken", tmp_path, "secret") as probe:
        finding, text = check_reading(probe)
    assert (finding.outcome, text) == (Outcome.OK, "BIN BLUE AT F TWO NOW")


def test_a_container_that_is_started_without_its_token(tmp_path: Path):
    """Not a minute of waiting for models that seem not to be loaded."""
    findings = ContractCheck(LIMITS).of_command([*PLANTED, "NeedsToken"], tmp_path, is_local=True)
    assert [one.check for one in findings] == ["start", "connection"]


def test_a_server_that_is_busy_with_others_is_asked_again(tmp_path: Path):
    with running("BusyAtFirst", tmp_path) as probe:
        finding, _ = check_reading(probe)
    assert finding.outcome is Outcome.OK


class Ping(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(401)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def https_server(pair: Pair) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ping)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pair = make_pair(tmp_path)
    with https_server(pair) as port:
        url = ContainerUrl.parse(f"https://127.0.0.1:{port}/")
        [unknown] = examine(url)
        assert "CERTIFICATE_VERIFY_FAILED" in unknown.found
        assert "SSL_CERT_FILE" in unknown.fix
        monkeypatch.setenv("SSL_CERT_FILE", str(pair.cert))
        [known] = examine(url)
        assert "with no token: 401" in known.found


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ssl.SSLError("wrong version number"), "use http://"),
        (socket.gaierror(-2, "Name or service not known"), "host's name"),
        (ConnectionRefusedError(), "listen on 0.0.0.0"),
    ],
)
def test_the_advice_fits_the_cause(cause: Exception, words: str):
    assert words in advise_connection(cause)


@pytest.mark.parametrize("text", ["http://user:password@host", "http://host/#part", "http://host/?a=b"])
def test_a_url_with_more_than_host_and_port_is_rejected(text: str):
    with pytest.raises(WrongRequest, match="--url") as error:
        ContainerUrl.parse(text)
    assert "password" not in str(error.value)


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Interrupt a process as a user does: once more if nothing happens. Returns: the exit status.

    Python drops the exception of an interrupt that comes while it runs a destructor.
    """
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait(30)


def test_an_interrupted_check_ends_at_once_and_stops_its_container(tmp_path: Path):
    """Requests under way would each take a minute."""
    command = [
        Path(sys.executable).parent / "viseme",
        "doctor",
        "--container-command",
        " ".join([*PLANTED, "HangsWhenFull"]),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}) as doctor:
        assert doctor.stdout is not None
        lines = iter(doctor.stdout.readline, b"")
        port = next(int(line.rpartition(b":")[2]) for line in lines if b"address:" in line)
        next(line for line in lines if b"connection reuse" in line)
        time.sleep(0.5)  # for the requests to be under way: each is an accepted connection that hangs
        assert interrupt(doctor) == 130
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        pass
