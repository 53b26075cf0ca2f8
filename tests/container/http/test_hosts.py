from __future__ import annotations

import socket

import pytest
from starlette.datastructures import Headers

from container.http.hosts import check_host, is_bound_to_loopback
from inference.errors import AccessDenied


def headers(*hosts: str) -> Headers:
    return Headers(raw=[(b"host", host.encode("latin-1")) for host in hosts])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost:1",
        "localhost.",
        "localhost:",
        "viseme.localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.255.3.4",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]:8080",
    ],
)
def test_loopback_names_are_accepted(host: str):
    check_host(headers(host), ())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "localhost@evil.example",
        "evil.example:localhost",
        "evil.example, localhost",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost:80:80",
        "http://localhost",
        "localhost/",
        "localhost#",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "[::1",
        "::1",
        "[::1%25lo]",
        "[fe80::1]",
        "192.168.1.2",
        "",
        " ",
        "\xe9\xb2localhost",
        "localhos\xb5",
        "e" * 70_000,
    ],
)
def test_other_and_malformed_names_are_denied(host: str):
    with pytest.raises(AccessDenied, match=r"^Host .*: expected a loopback name .* VISEME_ALLOWED_HOSTS$") as caught:
        check_host(headers(host), ())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("hosts", "n"), [((), 0), (("localhost", "localhost"), 2), (("localhost", "evil.example"), 2)])
def test_exactly_one_host_is_expected(hosts: tuple[str, ...], n: int):
    with pytest.raises(AccessDenied, match=f"^{n} Host headers; expected one$"):
        check_host(headers(*hosts), ())


def test_names_are_allowed_one_by_one_or_below_a_domain():
    allowed = ("lips.example.com", "*.example.org", "[2001:db8::1]")
    for host in ("lips.example.com", "LIPS.example.com.:443", "a.example.org", "a.b.example.org", "[2001:DB8::1]:80"):
        check_host(headers(host), allowed)
    check_host(headers("localhost"), allowed)
    for host in ("a.lips.example.com", "example.org", "notexample.org", "[2001:db8::2]"):
        with pytest.raises(AccessDenied):
            check_host(headers(host), allowed)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_a_server_can_be_bound_to_a_loopback_address(host: str):
    assert is_bound_to_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2"])
def test_a_server_can_be_bound_to_another_address(host: str):
    assert not is_bound_to_loopback(host)


@pytest.mark.parametrize(
    ("addresses", "expected"), [(["127.0.1.1"], True), (["127.0.1.1", "10.0.0.5"], False), ([], True)]
)
def test_a_name_counts_as_loopback_if_it_has_no_other_address(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], expected: bool
):
    def resolve(_name: str, _port: None, **_options: object) -> list[tuple[object, ...]]:
        if not addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert is_bound_to_loopback("laptop") is expected
