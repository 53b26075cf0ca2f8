"""Limits of connections: the rules alone, and over real sockets with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.certificates import make_pair
from support.echo_server import RunningEcho, run_echo
from support.waiting import PATIENCE_S, read_all, wait_until
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from container.http import connections
from container.http.connections import AdmissionProtocol, ConnectionLimits, ConnectionQuota
from inference.errors import Overloaded
from inference.settings import Settings

GET = b"GET /short HTTP/1.1\r\nhost: a\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
)
LOOPBACK, ELSEWHERE, ANOTHER = "127.0.0.1", "192.0.2.1", "192.0.2.2"


def limits_of(max_files: int | None = None, **env: str) -> ConnectionLimits:
    return ConnectionLimits.of(Settings.from_env({f"VISEME_{name}": value for name, value in env.items()}), max_files)


def test_one_client_has_a_share_and_this_machine_any_number():
    limits = limits_of()
    assert (limits.of_client(ELSEWHERE), limits.of_client(LOOPBACK)) == (256, None)
    assert limits.of_client("unknown") is None  # at a Unix socket


def test_a_number_that_is_set_holds_for_every_client():
    limits = limits_of(MAX_CONNECTIONS_PER_CLIENT="3")
    assert (limits.of_client(ELSEWHERE), limits.of_client(LOOPBACK)) == (3, 3)


def test_behind_proxies_and_on_sagemaker_one_address_is_everybody():
    assert limits_of(TRUSTED_PROXIES="1").of_client(ELSEWHERE) is None
    assert limits_of(TRUSTED_PROXIES="1", MAX_CONNECTIONS_PER_CLIENT="3").of_client(ELSEWHERE) is None
    assert limits_of(ON_SAGEMAKER="true").of_client(ELSEWHERE) is None
    assert limits_of(ON_SAGEMAKER="true", MAX_CONNECTIONS_PER_CLIENT="3").of_client(ELSEWHERE) == 3


def test_connections_leave_files_for_other_uses():
    assert limits_of(1 << 20).total == limits_of().total == 16_384
    assert limits_of(4096).total == 4096 - 512
    assert limits_of(256).total == 128
    assert limits_of(1 << 20, MAX_CONNECTIONS="100").total == 100


def test_connections_are_counted_until_they_are_released(caplog: pytest.LogCaptureFixture):
    quota = ConnectionQuota(ConnectionLimits(3, 2))
    first, second = quota.admit(ELSEWHERE), quota.admit(ELSEWHERE)
    with caplog.at_level("INFO"), pytest.raises(Overloaded, match="2 connections of your address"):
        quota.admit(ELSEWHERE)
    assert [record.client for record in caplog.records] == [ELSEWHERE]
    quota.admit(ANOTHER)
    with pytest.raises(Overloaded, match="3 connections are open"):
        quota.admit(LOOPBACK)
    first()
    first()  # again: no effect
    assert quota.n_open == 2
    quota.admit(ELSEWHERE)
    second()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, port=0)


def quota_of(total: int) -> ConnectionQuota:
    return ConnectionQuota(ConnectionLimits(total))


def test_one_connection_too_many_is_told_so_and_closed(settings: Settings):
    quota = quota_of(2)
    with run_echo(settings, quota) as server:
        with server.connect(GET) as one, server.connect() as idle:
            assert one.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            wait_until(lambda: quota.n_open == 2)
            with server.connect() as refused:
                answer = read_all(refused)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after" in answer
            assert b"2 connections are open, which is the limit" in answer
            idle.close()
            wait_until(lambda: quota.n_open == 1)
            with server.connect(GET) as next_one:
                assert next_one.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        wait_until(lambda: quota.n_open == 0)


def test_a_connection_counts_until_its_websocket_ends(settings: Settings):
    quota = quota_of(2)
    with run_echo(settings, quota) as server:
        with server.connect(UPGRADE) as one:
            assert one.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 101"
            wait_until(lambda: quota.n_open == 1)
        wait_until(lambda: quota.n_open == 0)


@pytest.mark.parametrize(("protocol", "sent"), [(HttpToolsProtocol, GET), (WebSocketsSansIOProtocol, UPGRADE)])
def test_a_connection_whose_end_fails_is_released(settings: Settings, monkeypatch, protocol: type, sent: bytes):
    end = protocol.connection_lost

    def fail(self: object, exc: Exception | None) -> None:
        end(self, exc)
        raise RuntimeError("in a test")

    monkeypatch.setattr(protocol, "connection_lost", fail)
    quota = quota_of(2)
    with run_echo(settings, quota) as server:
        with server.connect(sent) as one:
            assert one.recv(9, socket.MSG_WAITALL) == b"HTTP/1.1 "
            assert quota.n_open == 1
        wait_until(lambda: quota.n_open == 0)


@pytest.fixture
def secured(settings: Settings, tmp_path: Path) -> Settings:
    pair = make_pair(tmp_path)
    return settings.model_copy(update={"tls_cert": pair.cert, "tls_key": pair.key})


def shake_hands(server: RunningEcho, secured: Settings) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(secured.tls_cert))
    return context.wrap_socket(server.connect(), server_hostname="localhost")


def test_connections_count_before_their_tls_handshake(secured: Settings):
    quota = quota_of(2)
    with run_echo(secured, quota) as server:
        with server.connect(), server.connect():
            wait_until(lambda: quota.n_open == 2)
            with server.connect() as refused:
                assert read_all(refused) == b""
        wait_until(lambda: quota.n_open == 0)
        with shake_hands(server, secured) as one:
            one.sendall(GET)
            assert one.recv(12) == b"HTTP/1.1 200"
            assert quota.n_open == 1
        wait_until(lambda: quota.n_open == 0)


@pytest.mark.parametrize("sent", [b"", GET])
def test_a_connection_that_is_reset_before_its_tls_handshake_is_released(secured: Settings, sent: bytes):
    """Any number of them: one that stays counted would be missing for ever."""
    quota = quota_of(1000)
    with run_echo(secured, quota) as server:
        for _ in range(50):
            with server.connect(sent) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        with shake_hands(server, secured) as last:
            last.sendall(GET)
            assert last.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: quota.n_open == 0)


@pytest.mark.parametrize("sent", [GET, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)])
def test_a_failed_tls_handshake_is_released(secured: Settings, sent: bytes, caplog: pytest.LogCaptureFixture):
    quota = quota_of(2)
    with run_echo(secured, quota) as server, server.connect(sent) as one:
        if sent == GET:
            read_all(one)
        else:  # half of a handshake
            wait_until(lambda: quota.n_open == 1)
            one.close()
        wait_until(lambda: quota.n_open == 0)
    assert "Traceback" not in caplog.text


def test_a_tls_handshake_that_stalls_is_closed(secured: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "TLS_HANDSHAKE_TIMEOUT_S", 0.2)
    quota = quota_of(1)
    with run_echo(secured, quota) as server, server.connect() as stalled:
        assert read_all(stalled) == b""
        wait_until(lambda: quota.n_open == 0)


class Greeter(asyncio.Protocol):
    """Sends back what it receives first."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
        self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._on_lost()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("is_early", [True, False])
def test_both_event_loops_lose_no_byte_of_a_handshake(tmp_path: Path, run: Callable[[Any], None], is_early: bool):
    """Bytes may arrive before and after the server starts its part of the handshake."""
    pair, quota = make_pair(tmp_path), quota_of(8)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=str(pair.cert))

    def ask(port: int) -> bytes:
        with contextlib.closing(socket.create_connection((LOOPBACK, port), PATIENCE_S)) as plain:
            if not is_early:
                wait_until(lambda: quota.n_open == 1)
            with trusting.wrap_socket(plain, server_hostname="localhost") as one:
                one.sendall(b"hello")
                return one.recv(5)

    async def go() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: AdmissionProtocol(quota, context, Greeter), LOOPBACK, 0
        )
        for _ in range(5):
            assert await asyncio.to_thread(ask, server.sockets[0].getsockname()[1]) == b"hello"
            await asyncio.to_thread(wait_until, lambda: quota.n_open == 0)
        server.close()

    run(go())
