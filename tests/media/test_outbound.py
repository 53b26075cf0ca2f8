"""Requests to URLs that callers name."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from support.certificates import make_pair
from support.local_http import Answer, http_server, send

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, MediaTooLarge, StorageError, VisemeError
from inference.media import outbound
from inference.media.outbound import OutboundClient, UrlRules, is_public


def local_client(*allowed: str, **options: Any) -> OutboundClient:
    return OutboundClient(UrlRules(allowed or ("localhost",)), **options)


def fetch(answer: Answer, tmp_path: Path, max_bytes: int = 1000, path: str = "/clip.mp4") -> bytes:
    with http_server(answer) as port:
        local_client().fetch(f"http://localhost:{port}{path}", tmp_path / "file", max_bytes)
    return (tmp_path / "file").read_bytes()


def test_a_file_is_fetched_with_its_type(tmp_path: Path) -> None:
    seen: list[int] = []
    with http_server(send(content_type="Video/MP4; x=y")) as port:
        url = f"http://localhost:{port}/clip.mp4?signature=1"
        assert local_client().fetch(url, tmp_path / "file", 1000, seen.append) == "video/mp4"
    assert (tmp_path / "file").read_bytes() == b"video"
    assert seen[-1] == 5


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/",
        "http://",
        "http:///a",
        "http://user:secret@example.com/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://exa mple.com/",
        "http://example.com/\r\nx: y",
        "http://[::1",
        "http://exämple.com/",
        "http://example.com/" + "x" * 3000,
        "//example.com/a",
        "clip.mp4",
    ],
)
def test_what_is_no_http_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        local_client().fetch(url, tmp_path / "file", 10)
    with pytest.raises(InvalidRequest):
        local_client().post(url, b"", {})


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "0.0.0.0", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"]
    + ["[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1"]
    + ["2130706433", "0x7f.1", "017700000001", "localhost"],
)
def test_private_addresses_are_refused(host: str, tmp_path: Path) -> None:
    client = OutboundClient(UrlRules())
    for call in (lambda url: client.fetch(url, tmp_path / "file", 10), lambda url: client.post(url, b"", {})):
        with pytest.raises((AccessDenied, StorageError)) as raised:
            call(f"http://{host}:9/")
        if isinstance(raised.value, StorageError):  # a form that the resolver does not take for an address
            assert "cannot be resolved" in str(raised.value)


def test_a_name_with_one_private_address_is_refused(tmp_path: Path) -> None:
    client = OutboundClient(UrlRules(), resolve=lambda _host, _port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(AccessDenied, match=r"example\.com: has an address that is not public"):
        client.fetch("http://example.com/", tmp_path / "file", 10)


def test_a_name_is_resolved_once(tmp_path: Path) -> None:
    """A second answer of the name server cannot lead the connection elsewhere."""
    resolved: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    with http_server(send()) as port:
        client = OutboundClient(UrlRules((f"rebinding.example:{port}",)), resolve=resolve)
        client.fetch(f"http://rebinding.example:{port}/", tmp_path / "file", 10)
    assert resolved == ["rebinding.example"]


def test_an_allowed_host_is_allowed_at_its_port_only(tmp_path: Path) -> None:
    with http_server(send()) as port:
        client = local_client(f"localhost:{port}")
        client.fetch(f"http://localhost:{port}/", tmp_path / "file", 10)
        with pytest.raises(AccessDenied):
            client.fetch(f"http://localhost:{port + 1}/", tmp_path / "other", 10)
        with pytest.raises(AccessDenied):
            client.fetch(f"http://127.0.0.1:{port}/", tmp_path / "other", 10)


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/", "http://169.254.169.254/latest/", "file:///etc/passwd"])
def test_redirects_are_checked(location: str, tmp_path: Path) -> None:
    with pytest.raises((AccessDenied, InvalidRequest)):
        fetch(send(302, location=location), tmp_path)
    assert not (tmp_path / "file").exists()


def test_redirects_are_followed_a_few_times(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        left = int(handler.path[1:])
        (send() if not left else send(302, location=f"/{left - 1}"))(handler)

    assert fetch(answer, tmp_path, path="/5") == b"video"
    (tmp_path / "file").unlink()
    with pytest.raises(InvalidRequest, match="over 5 redirects"):
        fetch(answer, tmp_path, path="/6")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (send(404), MediaNotFound),
        (send(403), AccessDenied),
        (send(400), InvalidRequest),
        (send(500), StorageError),
        (send(429), StorageError),
        (send(200, b"x" * 1001), MediaTooLarge),
        (send(200, b"x", content_length="2000"), MediaTooLarge),
        (send(200, b"x", content_length="10"), StorageError),  # breaks off
    ],
)
def test_what_goes_wrong_is_named_and_leaves_no_file(answer: Answer, error: type[VisemeError], tmp_path: Path) -> None:
    with pytest.raises(error, match=r"http://localhost:[0-9]+/clip\.mp4: ") as raised:
        fetch(answer, tmp_path, path="/clip.mp4?signature=secret")
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "file").exists()


def test_a_body_without_a_length_is_bounded(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x" * 1000)

    with pytest.raises(MediaTooLarge):
        fetch(answer, tmp_path, max_bytes=5000)


def test_a_compressed_body_is_not_expanded(tmp_path: Path) -> None:
    assert fetch(send(200, b"\x1f\x8bzip", content_encoding="gzip"), tmp_path) == b"\x1f\x8bzip"


class ManualClock:
    """A clock that moves when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_slow_host_is_left_after_the_deadline(tmp_path: Path) -> None:
    clock = ManualClock()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        clock.now = outbound.FETCH_TIMEOUT_S + 1
        send()(handler)

    with http_server(answer) as port, pytest.raises(StorageError, match=r"not downloaded within 900 s|took too long"):
        local_client(clock=clock).fetch(f"http://localhost:{port}/", tmp_path / "file", 10)
    assert not (tmp_path / "file").exists()


def test_a_receiver_that_answers_byte_by_byte_is_left() -> None:
    """Each byte comes in time; all of them would take hours."""
    clock = ManualClock()
    is_left = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n":
            clock.now += outbound.READ_TIMEOUT_S - 1
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                break
        is_left.wait(30)

    with http_server(answer) as port:
        with pytest.raises(StorageError, match="took too long as a whole"):
            local_client(clock=clock).post(f"http://localhost:{port}/hook", b"{}", {})
        is_left.set()


def test_an_unreachable_host_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StorageError, match=f"http://localhost:{port}/x: ConnectError"):
        local_client().fetch(f"http://localhost:{port}/x", tmp_path / "file", 10)


def test_posts_follow_no_redirect() -> None:
    received: list[tuple[bytes, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        received.append((handler.rfile.read(length), handler.headers["webhook-id"]))
        send(302, location="/elsewhere")(handler)

    with http_server(answer) as port:
        status = local_client().post(f"http://localhost:{port}/hook", b"{}", {"webhook-id": "msg_1"})
    assert status == 302
    assert received == [(b"{}", "msg_1")]


def test_certificates_are_of_the_name_and_not_of_the_address(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    trusted = ssl.create_default_context(cafile=pair.cert)
    with http_server(send(), server) as port:
        local_client(certificates=trusted).fetch(f"https://localhost:{port}/", tmp_path / "file", 10)
        with pytest.raises(StorageError):  # an authority that the system does not know
            local_client().fetch(f"https://localhost:{port}/", tmp_path / "other", 10)
        other = local_client("other.example", certificates=trusted, resolve=lambda _host, _port: ["127.0.0.1"])
        with pytest.raises(StorageError):
            other.fetch(f"https://other.example:{port}/", tmp_path / "other", 10)


def test_public_addresses() -> None:
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(address)), address
    for address in ("127.0.0.1", "::", "::1", "fd00::1", "255.255.255.255", "2001:0:4136:e378:8000:63bf:3fff:fdd2"):
        assert not is_public(ipaddress.ip_address(address)), address
    for address in ("::127.0.0.1", "::a9fe:a9fe", "fec0::1", "ff0e::1", "4000::1"):
        assert not is_public(ipaddress.ip_address(address)), address


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]"])
def test_an_address_that_is_not_public_is_found_without_a_look_up(host: str) -> None:
    with pytest.raises(AccessDenied, match="not public"):
        UrlRules(("other.internal",)).check_literal(f"http://{host}/hook")


def test_other_hosts_are_checked_when_they_are_requested() -> None:
    UrlRules(("127.0.0.1:8000",)).check_literal("http://127.0.0.1:8000/hook")
    UrlRules().check_literal("https://hooks.example/a")
    UrlRules().check_literal("http://1.1.1.1/a")
