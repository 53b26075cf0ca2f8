"""Who may come in."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from inference.errors import AccessDenied

PROTOCOL = "viseme"
BEARER = "bearer."  # before the token, base64url without padding, where a browser can set no header


def check_token(headers: Headers, token: str | None) -> None:
    """Raises: AccessDenied where the server wants a token and the caller has not sent it."""
    if token is None:
        return
    given = headers.get("authorization", "").removeprefix("Bearer ").encode() or token_of_protocols(headers)
    if not hmac.compare_digest(given, token.encode()):
        raise AccessDenied("expected the header Authorization: Bearer with the server's token")


def check_origin(headers: Headers, token: str | None, allowed: Sequence[str]) -> None:
    """Keep out pages of other sites, which any browser on this machine may have open: no rule of its own keeps it
    from opening a WebSocket to anywhere. Pages of this host, on any port, may come in, as may those that are
    `allowed` ("*": all), whoever has the token, and whatever is no browser and so says no origin.

    Raises: AccessDenied.
    """
    origin = headers.get("origin")
    if origin is None or token is not None or origin in allowed or "*" in allowed:
        return
    host = host_of(f"//{headers.get('host', '')}")
    if host is None or host_of(origin) != host:
        raise AccessDenied(f"a page of {origin[:100]} may not come in: VISEME_ALLOWED_ORIGINS or VISEME_TOKEN let it")


def host_of(address: str) -> str | None:
    """None where it names none, or is no address."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def token_of_protocols(headers: Headers) -> bytes:
    """Of `Sec-WebSocket-Protocol: viseme, bearer.TOKEN`: all that JavaScript can set of a WebSocket's headers."""
    for one in protocols_of(headers):
        if one.startswith(BEARER):
            packed = one.removeprefix(BEARER)
            try:
                return base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
            except (ValueError, binascii.Error):
                return b""
    return b""


def protocols_of(headers: Headers) -> list[str]:
    return [one.strip() for line in headers.getlist("sec-websocket-protocol") for one in line.split(",")]


def chosen_protocol(connection: HTTPConnection) -> str | None:
    """A browser that offers protocols wants one of them chosen, and the token is none."""
    return PROTOCOL if PROTOCOL in protocols_of(connection.headers) else None
