from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from container.http.auth import check_origin
from inference.errors import AccessDenied


def check(origin: str | None, host: str = "localhost:8080", token: str | None = None, allowed: tuple[str, ...] = ()):
    headers = Headers({"host": host} | ({} if origin is None else {"origin": origin}))
    check_origin(headers, token, allowed)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:8080"),  # not from a browser
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost:8086", "localhost:8085"),  # the proxy's page uses the main port
        ("https://LIPS.example.com", "lips.example.com"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_pages_of_the_servers_own_host_are_allowed(origin: str | None, host: str):
    check(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "localhost:8080"),
        ("http://127.0.0.1:8080", "localhost:8080"),
        ("null", "localhost:8080"),  # from a local file or a sandboxed frame
        ("http://localhost.evil.example", "localhost:8080"),
        ("null", ""),
        ("http://[", "localhost:8080"),  # not a URL
        ("http://[", "["),
    ],
)
def test_pages_of_other_sites_are_rejected(origin: str, host: str):
    with pytest.raises(AccessDenied, match=r"origin .* is not allowed; .* VISEME_ALLOWED_ORIGINS.* VISEME_TOKEN"):
        check(origin, host)


def test_other_sites_are_allowed_by_name_or_with_a_token():
    check("https://app.example", allowed=("https://app.example",))
    check("https://anything.example", allowed=("*",))
    check("https://anything.example", token="secret")  # the token is checked instead
    with pytest.raises(AccessDenied):
        check("https://other.example", allowed=("https://app.example",))
