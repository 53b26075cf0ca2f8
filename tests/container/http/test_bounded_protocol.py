"""The protocol over real sockets, below an application that counts what it receives."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import make_pair
from support.echo_server import RunningEcho, run_echo
from support.waiting import PATIENCE_S, read_all, wait_until
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from container.http import bounded_protocol
from container.http.bounded_protocol import FEED_BYTES, MAX_HEAD_BYTES, BoundedHttpProtocol, ConnectionTimeouts
from container.live import transport
from inference.settings import Settings

SOON_S = 0.3
GET = b"GET /short HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, port=0)


@pytest.fixture
def server(settings: Settings) -> Iterator[RunningEcho]:
    with run_echo(settings) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "timeouts", ConnectionTimeouts(SOON_S, SOON_S, SOON_S))


def chunked(body: bytes) -> bytes:
    """Return a request whose body comes in chunks of one byte."""
    head = b"POST /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % one for one in body) + b"0\r\n\r\n"


@pytest.mark.parametrize("head", [b"G", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n", b"\r\n", GET + b"GET /"])
def test_a_head_that_never_ends_is_rejected(impatient: None, server: RunningEcho, head: bytes):
    with server.connect(head) as one:
        answer = read_all(one)
    assert b"HTTP/1.1 408 Request Timeout\r\n" in answer
    assert b"connection: close\r\n" in answer
    assert b'"code": "deadline_exceeded"' in answer
    wait_until(lambda: server.n_connections == 0)


def test_bytes_that_trickle_do_not_prolong_the_deadline(impatient: None, server: RunningEcho):
    with server.connect() as one:
        one.settimeout(0.05)
        answer = b""
        for i in range(int(PATIENCE_S / 0.05)):
            one.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n" if i == 0 else b"x: y\r\n")
            try:
                answer = one.recv(1 << 16)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_connection_that_sends_nothing_has_the_keep_alive_timeout(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
):
    monkeypatch.setattr("container.server.KEEP_ALIVE_S", SOON_S)
    with run_echo(settings) as server, server.connect() as one:
        assert read_all(one) == b""


def test_an_idle_connection_outlasts_the_deadline_of_heads(impatient: None, server: RunningEcho):
    with server.connect() as one:
        for _ in range(2):
            time.sleep(2 * SOON_S)
            one.sendall(GET)
            assert one.recv(1 << 16, socket.MSG_PEEK).startswith(b"HTTP/1.1 200")
            while not one.recv(1 << 16).endswith(b"0\r\n\r\n"):
                pass


def test_the_head_of_the_next_request_may_wait_for_the_answer(impatient: None, server: RunningEcho):
    late = b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n"
    with server.connect(late + GET[:-10]) as one:
        wait_until(lambda: server.app.paths == ["/late"])
        time.sleep(2 * SOON_S)
        server.app.may_answer.set()
        one.sendall(GET[-10:])
        answer = b""
        while answer.count(b"0\r\n\r\n") < 2:
            answer += one.recv(1 << 16)
    assert answer.count(b"HTTP/1.1 200") == 2


def test_a_head_over_the_limit_is_rejected(server: RunningEcho):
    with server.connect(b"GET / HTTP/1.1\r\nhost: a\r\nx-a: ") as one:
        one.sendall(b"x" * (MAX_HEAD_BYTES - 1000))
        time.sleep(0.1)
        one.sendall(b"x" * 2000)
        assert read_all(one).startswith(b"HTTP/1.1 431 ")


def test_trailers_over_the_limit_are_rejected_and_small_ones_ignored(server: RunningEcho):
    head = b"POST /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    with server.connect(head + b"x-checksum: 1\r\n\r\n") as one:
        assert read_all(one).startswith(b"HTTP/1.1 200 ")
    with server.connect(head + b"x-checksum: ") as one:
        one.sendall(b"x" * (MAX_HEAD_BYTES + 2 * FEED_BYTES))
        assert b"HTTP/1.1 200 " not in read_all(one)
    wait_until(lambda: server.n_connections == 0)


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\nhost: b\r\n"])
def test_a_request_has_one_host(server: RunningEcho, hosts: bytes):
    with server.connect(b"GET /short HTTP/1.1\r\n" + hosts + b"\r\n") as one:
        assert read_all(one).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "framing", [b"content-length: 1\r\ntransfer-encoding: chunked\r\n", b"content-length: 1\r\ncontent-length: 2\r\n"]
)
def test_ambiguous_lengths_are_rejected(server: RunningEcho, framing: bytes):
    with server.connect(b"POST /count HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\n1\r\nx\r\n0\r\n\r\n") as one:
        assert read_all(one).startswith(b"HTTP/1.1 400 ")


def test_chunks_of_one_byte_are_coalesced(server: RunningEcho):
    n_bytes = 100_000
    with server.connect() as one:
        one.sendall(chunked(bytes(n_bytes)))
        assert b"\r\n100000\r\n" in read_all(one)
    assert sum(server.app.sizes) == n_bytes
    assert len(server.app.sizes) < n_bytes / 100


def test_other_connections_are_served_between_the_pieces_of_one(server: RunningEcho, monkeypatch: pytest.MonkeyPatch):
    fed: list[int] = []
    feed = bounded_protocol.HttpToolsProtocol.data_received
    monkeypatch.setattr(
        bounded_protocol.HttpToolsProtocol,
        "data_received",
        lambda self, data: (fed.append(len(data)), feed(self, data)),
    )
    with server.connect(chunked(bytes(100_000))) as one:
        assert b"\r\n100000\r\n" in read_all(one)
    assert max(fed) == FEED_BYTES


def test_a_large_body_arrives_whole(server: RunningEcho):
    with server.connect(
        b"POST /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 50000000\r\n\r\n"
    ) as one:
        one.sendall(bytes(50_000_000))
        assert b"\r\n50000000\r\n" in read_all(one)


def test_a_body_that_was_answered_before_its_end_is_bounded(impatient: None, server: RunningEcho):
    with server.connect(b"POST /short HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx") as one:
        answer = read_all(one)
    assert answer.startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.n_connections == 0)


def test_a_connection_goes_on_after_a_body_that_was_answered_before_its_end(impatient: None, server: RunningEcho):
    with server.connect(b"POST /short HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nx") as one:
        one.recv(1 << 16)
        one.sendall(b"yz")
        time.sleep(2 * SOON_S)
        one.sendall(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert b"HTTP/1.1 200 " in read_all(one)


def test_an_answer_that_nobody_reads_is_aborted(impatient: None, server: RunningEcho):
    with server.connect(b"GET /long HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n") as one:
        assert one.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: server.n_connections == 0)
        assert len(read_all(one)) < 64 << 20


def test_an_answer_that_is_read_slowly_is_sent_whole(impatient: None, server: RunningEcho):
    n_bytes = 0
    with server.connect(b"GET /long HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n") as one:
        while part := one.recv(4 << 20, socket.MSG_WAITALL):
            n_bytes += len(part)
            time.sleep(SOON_S / 6)
    assert n_bytes > 64 << 20


def test_pipelined_requests_wait_unread_and_are_answered_in_order(server: RunningEcho):
    late = b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n"
    n_requests = 20_000
    with server.connect(late) as one:
        sender = threading.Thread(target=one.sendall, args=(GET * n_requests,))
        sender.start()
        wait_until(lambda: server.app.paths == ["/late"])
        time.sleep(0.1)
        (connection,) = server.http.server_state.connections
        assert len(connection.pipeline) <= FEED_BYTES / len(GET) + 1
        server.app.may_answer.set()
        answer = b""
        while answer.count(b"0\r\n\r\n") < n_requests + 1:
            answer += one.recv(1 << 20)
            n_answers = answer.count(b"0\r\n\r\n")
            if n_answers > 100:  # enough: the others are alike
                break
        assert server.app.paths[:3] == ["/late", "/short", "/short"]
        one.shutdown(socket.SHUT_RDWR)
        sender.join(PATIENCE_S)


def test_a_websocket_outlasts_the_deadlines(impatient: None, server: RunningEcho):
    key = b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
    with server.connect(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n" + key) as one:
        one.sendall(b"\r\n")
        received = b""
        while b"welcome" not in received:
            received += one.recv(1 << 16)
        assert received.startswith(b"HTTP/1.1 101")
        time.sleep(2 * SOON_S)
        one.sendall(b"\x81\x80\0\0\0\0")  # an empty message, which the application waits for
        assert b"goodbye" in read_all(one)


def test_the_deadline_of_heads_holds_for_websockets(impatient: None, server: RunningEcho):
    with server.connect(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n") as one:
        assert read_all(one).startswith(b"HTTP/1.1 408 ")


UPGRADE = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"


def test_a_rejected_websocket_handshake_is_answered_and_closed(server: RunningEcho):
    """The parser of WebSockets allows lines of 8 KiB."""
    with server.connect(UPGRADE + b"cookie: " + b"a" * 9000 + b"\r\n\r\n") as one:
        assert read_all(one).startswith(b"HTTP/1.1 431 ")


def test_a_websocket_handshake_that_stalls_is_aborted(server: RunningEcho, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "HANDSHAKE_TIMEOUT_S", SOON_S)
    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", lambda *_: None)
    with server.connect(UPGRADE + b"\r\n") as one:
        assert read_all(one) == b""


def test_an_expected_continue_is_sent_before_the_body(server: RunningEcho):
    head = b"POST /count HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
    with server.connect(head) as one:
        assert one.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.sendall(b"abc")
        assert read_all(one).endswith(b"3\r\n0\r\n\r\n")


def test_tls_connections_have_the_same_bounds(impatient: None, tmp_path: Path, settings: Settings):
    pair = make_pair(tmp_path)
    secured = settings.model_copy(update={"tls_cert": pair.cert, "tls_key": pair.key})
    context = ssl.create_default_context(cafile=str(pair.cert))
    with run_echo(secured) as server:
        with context.wrap_socket(server.connect(), server_hostname="localhost") as one:
            one.sendall(chunked(bytes(50_000)))
            assert b"\r\n50000\r\n" in read_all(one)
        with context.wrap_socket(server.connect(), server_hostname="localhost") as one:
            one.sendall(b"GET / HTTP/1.1\r\n")
            assert read_all(one).startswith(b"HTTP/1.1 408 ")
