"""Authentication and origin checks of HTTP and WebSocket requests."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from inference.errors import AccessDenied

SUBPROTOCOL = "viseme"  # the WebSocket subprotocol that the server accepts
BEARER_PREFIX = "bearer."  # of a subprotocol; the token follows, in base64url without padding


def check_token(headers: Headers, token: str | None) -> None:
    """Check the server's token. Raises: AccessDenied if one is configured and the request does not carry it."""
    if token is None:
        return
    given = headers.get("authorization", "").removeprefix("Bearer ").encode() or token_from_subprotocols(headers)
    if not hmac.compare_digest(given, token.encode()):
        raise AccessDenied("expected the header Authorization: Bearer with the server's token")


def check_origin(headers: Headers, token: str | None, allowed: Sequence[str]) -> None:
    """Reject requests from web pages of other sites.

    Browsers let any page open a WebSocket to any host, so an unguarded server must check the origin itself. Accepted
    are pages of the server's own host on any port, the origins in `allowed` ("*" allows all), every request if a token
    is configured (`check_token` guards it), and requests without an Origin header: browsers send one with every
    WebSocket handshake, and other sites cannot read the response to a GET without one.

    Raises: AccessDenied.
    """
    origin = headers.get("origin")
    if origin is None or token is not None or origin in allowed or "*" in allowed:
        return
    host = host_of(f"//{headers.get('host', '')}")
    if host is None or host_of(origin) != host:
        raise AccessDenied(
            f"origin {origin[:100]} is not allowed; add it to VISEME_ALLOWED_ORIGINS, or protect the server with "
            "VISEME_TOKEN"
        )


def host_of(address: str) -> str | None:
    """Return the host name of a URL, or None if it has none or is not a valid URL."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def token_from_subprotocols(headers: Headers) -> bytes:
    """Return the token in `Sec-WebSocket-Protocol: viseme, bearer.TOKEN`, or b"" if there is none.

    Of a WebSocket's headers, JavaScript can set this one only.
    """
    for subprotocol in offered_subprotocols(headers):
        if subprotocol.startswith(BEARER_PREFIX):
            encoded = subprotocol.removeprefix(BEARER_PREFIX)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            except (ValueError, binascii.Error):
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
