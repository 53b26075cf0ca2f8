"""The address by which a caller reaches this server, for URLs in answers and webhooks."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

FORWARDED_PROTO, FORWARDED_HOST = "x-forwarded-proto", "x-forwarded-host"
SCHEMES = ("http", "https")
HOST = re.compile(r"[A-Za-z0-9._-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def base_url_of(connection: HTTPConnection, n_proxies: int) -> str:
    """Return the scheme and host that a request names, such as https://lips.example.com.

    A host that is not one is replaced by the server's own address. n_proxies: trusted reverse proxies before the
    server; X-Forwarded-Proto and X-Forwarded-Host count only if there are any.
    """
    scheme, host = connection.url.scheme, connection.url.netloc
    if not HOST.fullmatch(host):
        address, port = connection.scope["server"]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if n_proxies:
        forwarded = last_value(connection, FORWARDED_PROTO)
        scheme = forwarded if forwarded in SCHEMES else scheme
        forwarded = last_value(connection, FORWARDED_HOST)
        host = forwarded if HOST.fullmatch(forwarded) else host
    return f"{scheme}://{host}"


def last_value(connection: HTTPConnection, name: str) -> str:
    """Return the last value of a header: the nearest proxy's, as anyone can write those before it."""
    lines = connection.headers.getlist(name)
    return lines[-1].rpartition(",")[2].strip() if lines else ""
