from __future__ import annotations

import base64

import pytest
from starlette.datastructures import Headers

from container.http.auth import check_origin, check_token
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


def test_a_request_without_an_origin_is_denied_if_a_browser_says_that_it_comes_from_another_site():
    own = {"host": "localhost:8080"}
    for site in ("same-origin", "same-site", "none"):
        check_origin(Headers(own | {"sec-fetch-site": site}), None, ())
    cross = own | {"sec-fetch-site": "cross-site"}
    embedded = cross | {"referer": "https://app.example/page?a=b"}  # an image on an allowed page
    check_origin(Headers(embedded), None, ("https://app.example",))
    check_origin(Headers(cross), None, ("*",))
    check_origin(Headers(cross), "secret", ())
    for headers in (cross, embedded, cross | {"referer": "http://["}, cross | {"referer": "http://localhost:8080/"}):
        with pytest.raises(AccessDenied, match=r"origin .* is not allowed"):
            check_origin(Headers(headers), None, ("https://other.example",))


def test_each_of_several_origins_must_be_allowed():
    for origins in (("http://localhost", "https://evil.example"), ("https://evil.example", "http://localhost")):
        raw = [(b"host", b"localhost"), *((b"origin", origin.encode()) for origin in origins)]
        with pytest.raises(AccessDenied, match=r"origin https://evil.example is not allowed"):
            check_origin(Headers(raw=raw), None, ())


def bearer(value: bytes) -> Headers:
    return Headers(raw=[(b"authorization", b"Bearer " + value)])


def keyed(value: bytes) -> Headers:
    return Headers(raw=[(b"x-api-key", value)])


def packed(value: bytes) -> Headers:
    text = base64.urlsafe_b64encode(value).rstrip(b"=")
    return Headers(raw=[(b"sec-websocket-protocol", b"viseme, bearer." + text)])


@pytest.mark.parametrize(
    ("token", "given"),
    [
        ("secret", b"secret"),
        ("öffne dich", "öffne dich".encode()),
        ("öffne dich", "öffne dich".encode("latin-1")),  # of fetch in a browser
        ("пароль", "пароль".encode()),
        ("\udcff\udcfe", b"\xff\xfe"),  # a variable that is not UTF-8, as Python reads it
    ],
)
def test_a_token_is_compared_as_bytes(token: str, given: bytes):
    check_token(bearer(given), token)
    check_token(keyed(given), token)
    check_token(packed(given), token)
    wrong = bearer(given[:-1]), bearer(given + b"\xff"), bearer(b""), keyed(given[1:]), packed(given[1:]), Headers({})
    for headers in wrong:
        with pytest.raises(AccessDenied, match="expected the header Authorization"):
            check_token(headers, token)


def test_a_wrong_bearer_token_is_not_made_good_by_a_key():
    headers = Headers({"authorization": "Bearer wrong", "x-api-key": "secret"})
    with pytest.raises(AccessDenied):
        check_token(headers, "secret")


@pytest.mark.parametrize("value", [b"bearer.\xff\xfe", b"bearer.=", b"bearer.a", b"bearer.", b"\xff"])
def test_a_malformed_subprotocol_is_no_token(value: bytes):
    with pytest.raises(AccessDenied):
        check_token(Headers(raw=[(b"sec-websocket-protocol", value)]), "secret")
