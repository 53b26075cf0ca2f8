from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from container.http.auth import check_origin
from inference.errors import AccessDenied


def enter(origin: str | None, host: str = "localhost:8080", token: str | None = None, allowed: tuple[str, ...] = ()):
    headers = Headers({"host": host} | ({} if origin is None else {"origin": origin}))
    check_origin(headers, token, allowed)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:8080"),  # no browser
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost:8086", "localhost:8085"),  # the proxy's page asks the other port
        ("https://LIPS.example.com", "lips.example.com"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_pages_of_the_servers_own_host_come_in(origin: str | None, host: str):
    enter(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "localhost:8080"),
        ("http://127.0.0.1:8080", "localhost:8080"),
        ("null", "localhost:8080"),  # a file, or a sandboxed frame
        ("http://localhost.evil.example", "localhost:8080"),
        ("null", ""),
        ("http://[", "localhost:8080"),  # no address at all
        ("http://[", "["),
    ],
)
def test_pages_of_other_sites_stay_out(origin: str, host: str):
    with pytest.raises(AccessDenied, match=r"origin .* is not allowed; .* VISEME_ALLOWED_ORIGINS.* VISEME_TOKEN"):
        enter(origin, host)


def test_they_come_in_by_name_or_where_a_token_guards_the_door():
    enter("https://app.example", allowed=("https://app.example",))
    enter("https://anything.example", allowed=("*",))
    enter("https://anything.example", token="secret")  # which is checked before
    with pytest.raises(AccessDenied):
        enter("https://other.example", allowed=("https://app.example",))
