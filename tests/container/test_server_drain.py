"""The end of a server process: answers that are being read, and a second signal. Its worker holds no model."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live_server import PATIENCE_S, LiveServer, live_server
from support.waiting import read_all

TESTS = Path(__file__).parents[1]
SERVE = (
    "from container.worker import process; from support.fake_worker import run_fake; process.run_worker = run_fake\n"
    "from container import server; server.DRAIN_TIMEOUT_S = 3600.0\n"
    "from inference.settings import Settings\n"
    "raise SystemExit(server.run_server(Settings.from_env()))"
)
SHUTDOWN_S = 1.5  # longer than the server waits for connections once nothing is left to do


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    path = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    env = {"PYTHONPATH": path, "SAGEMAKER_BIND_TO_PORT": "0", "VISEME_DATA_DIR": str(tmp_path / "data")}
    with live_server(tmp_path, env, command=(sys.executable, "-c", SERVE)) as live:
        yield live


def post(server: LiveServer, n_bytes: int) -> socket.socket:
    """Post a body, which is also the answer, and read the start of it. The sockets hold only a little of the rest."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    one.settimeout(PATIENCE_S)
    one.connect(("127.0.0.1", server.ready["port"]))
    head = (
        f"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-type: video/mp4\r\ncontent-length: {n_bytes}\r\n\r\n"
    )
    one.sendall(head.encode() + b"x" * n_bytes)
    assert one.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    return one


@pytest.mark.parametrize("n_bytes", [250_000, 4_000_000])  # one that is sent at once, and one in pieces
def test_answers_that_are_being_read_are_finished_after_sigterm(server: LiveServer, n_bytes: int):
    with post(server, n_bytes) as slow:
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.get("/ping").status_code == 503)
        time.sleep(SHUTDOWN_S)
        assert read_all(slow).endswith(b"\r\n\r\n" + b"x" * n_bytes)
    assert server.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_what_is_left_at_once(server: LiveServer):
    with post(server, 4_000_000) as unread:
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.get("/ping").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        assert len(read_all(unread)) < 4_000_000
    log = server.log.read_text()
    assert "stopping at once, after a second signal" in log
    assert "did not finish in time" not in log
