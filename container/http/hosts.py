"""The Host header: which names a server answers to, so that no other name can be pointed at it (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

from starlette.datastructures import Headers

from inference.errors import AccessDenied

# A name, an IPv4 address or an IPv6 address in brackets, and any port.
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?", re.ASCII)
MAX_SHOWN_CHARS = 100  # of a caller's header in a message


def check_host(headers: Headers, allowed: Sequence[str]) -> None:
    """Check that a request names this server by a loopback name, or by one in `allowed`.

    A page can point its own domain at 127.0.0.1, and its requests are then of the same origin as the server's. Their
    Host still has that domain: browsers set it, and pages cannot.

    Raises: AccessDenied, also if there is no Host header, or more than one.
    """
    found = headers.getlist("host")
    if len(found) != 1:
        raise AccessDenied(f"{len(found)} Host headers; expected one")
    name = host_name(found[0])
    if name is None or not (is_loopback_name(name) or any(matches(name, one) for one in allowed)):
        raise AccessDenied(
            f"Host {found[0][:MAX_SHOWN_CHARS]!r}: expected a loopback name such as localhost, or a name in "
            "VISEME_ALLOWED_HOSTS"
        )


def host_name(host: str) -> str | None:
    """Return the name or the address in a Host header, in lower case, or None if the header is malformed."""
    match = HOST.fullmatch(host.lower())
    return match[1].removesuffix(".") if match else None


def matches(name: str, allowed: str) -> bool:
    """Return whether a name is the allowed one; "*.example.com" allows every name below example.com."""
    return name.endswith(allowed[1:]) if allowed.startswith("*.") else name == allowed


def is_loopback_name(name: str) -> bool:
    """Return whether every machine resolves this name to itself: localhost, a name below it, or a loopback address."""
    return name == "localhost" or name.endswith(".localhost") or is_loopback_address(name.strip("[]"))


def is_loopback_address(address: str) -> bool:
    """Return whether this is ::1, or in 127.0.0.0/8; also if the latter is mapped into IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def is_bound_to_loopback(host: str) -> bool:
    """Return whether a server bound to this address, or to this name, can be reached from its own machine only."""
    if not host or is_loopback_name(host.lower()):
        return bool(host)  # without an address, a server is bound to all of them
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True  # the port cannot be opened either
    return all(is_loopback_address(str(address[0])) for *_, address in found)
