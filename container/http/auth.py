"""The token and the origin of HTTP and WebSocket requests."""

from __future__ import annotations

import base64
import contextlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from inference.errors import AccessDenied

SUBPROTOCOL = "viseme"  # the WebSocket subprotocol that the server accepts
BEARER_PREFIX = "bearer."  # of a subprotocol; the token follows, in base64url without padding
API_KEY_HEADER = "x-api-key"  # in which sync.so's clients send their key


def check_token(headers: Headers, token: str | None) -> None:
    """Check the server's token. Raises: AccessDenied if one is configured and the request does not carry it."""
    if token is None:
        return
    if not is_token(given_token(headers), token):
        raise AccessDenied("expected the header Authorization: Bearer, or X-Api-Key, with the server's token")


def given_token(headers: Headers) -> bytes:
    """Return the token that a request carries, or b"" without one; Authorization comes before the others."""
    given = headers.get("authorization", "").removeprefix("Bearer ") or headers.get(API_KEY_HEADER, "")
    # Starlette decodes headers as Latin-1, so this restores the caller's bytes.
    return given.encode("latin-1") or token_from_subprotocols(headers)


def is_token(given: bytes, token: str) -> bool:
    """Return whether a caller's bytes are the token, in UTF-8 or in Latin-1, which browsers use in headers.

    The comparison takes the same time wherever they differ.
    """
    forms = [encode_token(token)]
    with contextlib.suppress(UnicodeEncodeError):
        forms.append(token.encode("latin-1"))
    return sum(hmac.compare_digest(given, form) for form in forms) > 0


def encode_token(token: str) -> bytes:
    """Return the token in UTF-8. In a variable that is not UTF-8, Python replaces bytes by surrogates."""
    return token.encode("utf-8", "surrogateescape")


def check_origin(headers: Headers, token: str | None, allowed: Sequence[str]) -> None:
    """Reject requests from web pages of other sites.

    Browsers let any page open a WebSocket to any host and send it any form, so an unguarded server must check the
    origin itself. Accepted are pages of the server's own host on any port, the origins in `allowed` ("*" allows all),
    every request if a token is configured (`check_token` guards it), and requests without an Origin header, unless
    a browser marks them as those of another site: images and links have no Origin.

    Raises: AccessDenied.
    """
    if token is not None or "*" in allowed:
        return
    origins, own = headers.getlist("origin"), host_of(f"//{headers.get('host', '')}")
    for origin in origins:
        if origin not in allowed and (own is None or host_of(origin) != own):
            raise AccessDenied(denied_origin(origin))
    if not origins and headers.get("sec-fetch-site") == "cross-site":
        origin = origin_of(headers.get("referer", ""))  # pages can withhold it, but not forge it
        if origin not in allowed:
            raise AccessDenied(denied_origin(origin or "of another site"))


def denied_origin(origin: str) -> str:
    return (
        f"origin {origin[:100]} is not allowed; add it to VISEME_ALLOWED_ORIGINS, or protect the server with "
        "VISEME_TOKEN"
    )


def host_of(address: str) -> str | None:
    """Return the host name of a URL, or None if it has none or is not a valid URL."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def origin_of(address: str) -> str:
    """Return the origin of a URL, such as https://example.com, or "" if it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def token_from_subprotocols(headers: Headers) -> bytes:
    """Return the token in `Sec-WebSocket-Protocol: viseme, bearer.TOKEN`, or b"" if there is none.

    Of a WebSocket's headers, JavaScript can set this one only.
    """
    for subprotocol in offered_subprotocols(headers):
        if subprotocol.startswith(BEARER_PREFIX):
            encoded = subprotocol.removeprefix(BEARER_PREFIX)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            except ValueError:
                return b""
    return b""


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return the WebSocket subprotocols that the client offers, in its order."""
    return [one.strip() for line in headers.getlist("sec-websocket-protocol") for one in line.split(",")]


def choose_subprotocol(connection: HTTPConnection) -> str | None:
    """Return the subprotocol to accept, or None if the client did not offer it.

    A browser that offers subprotocols closes the connection unless the server accepts one; the token is not one.
    """
    return SUBPROTOCOL if SUBPROTOCOL in offered_subprotocols(connection.headers) else None
