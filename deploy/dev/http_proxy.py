"""Passes requests on to the container, and its answers back as they come."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.wsgi import get_input_stream

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

CHUNK_BYTES = 1 << 16
MAX_BODY_BYTES = 25 << 20  # of InvokeEndpoint
TIMEOUT_S = 3700.0  # the container's own deadlines are shorter
# Of one connection (RFC 9110, section 7.6.1), or set by http.client and the WSGI server.
DROPPED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class BodyTooLarge(Exception):
    """A real-time request is larger than SageMaker accepts."""


class ContainerUnreachable(Exception):
    """The container did not answer: it is starting, has ended, or the connection broke."""


class ContainerConnection:
    """Where the container listens. port: None until it is ready."""

    def __init__(self) -> None:
        self.port: int | None = None

    def send(
        self, path: str, headers: dict[str, str], body: bytes, timeout_s: float = TIMEOUT_S
    ) -> http.client.HTTPResponse:
        """Post a request and return the answer, whose body is still to be read.

        timeout_s: how long the container may be silent.

        Raises: ContainerUnreachable.
        """
        if self.port is None:
            raise ContainerUnreachable("the container is not ready")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("POST", path, body, headers | {"Connection": "close"})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as err:
            connection.close()
            raise ContainerUnreachable(f"the container does not answer: {type(err).__name__}: {err}") from err

    def forward(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        """Pass on a request under its own path.

        Raises: BodyTooLarge, ContainerUnreachable, before anything is answered.
        """
        body = get_input_stream(environ).read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the body has more than {MAX_BODY_BYTES} bytes; send the location of an S3 object")
        found = self.send(environ["PATH_INFO"], headers_of(environ), body)
        kept = [(name, value) for name, value in found.getheaders() if name.lower() not in DROPPED]
        if length := found.getheader("Content-Length"):
            kept.append(("Content-Length", length))
        start_response(f"{found.status} {found.reason}", kept)
        return read_pieces(found)


def headers_of(environ: Environ) -> dict[str, str]:
    """Return the headers of a WSGI request, without those of the connection."""
    found = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        found["CONTENT-TYPE"] = environ["CONTENT_TYPE"]
    return {name: value for name, value in found.items() if name.lower() not in DROPPED}


def read_pieces(found: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield a body as it arrives. Raises: http.client.HTTPException, OSError if it breaks off."""
    with found:
        while piece := found.read1(CHUNK_BYTES):
            yield piece
