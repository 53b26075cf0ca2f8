"""HTTP requests to the container that is checked: each one bounded in time and in the bytes of its answer."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from deploy.errors import WrongRequest

INVOCATIONS = "/invocations"
MAX_ANSWER_BYTES = 64 << 20  # more than SageMaker passes on in real time (25 MB)
READ_BYTES = 1 << 16
DEFAULT_PORTS = {"http": 80, "https": 443}


class NoReply(Exception):
    """A request had no complete answer: the message says how it ended."""


@dataclass(frozen=True)
class ContainerUrl:
    """Where the container is. token: of VISEME_TOKEN, None if it needs none."""

    scheme: str
    host: str
    port: int
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, token: str | None = None) -> ContainerUrl:
        """Parse an address. Raises: WrongRequest if it is not the URL of a server."""
        try:
            parts = urlsplit(text)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError as err:
            raise WrongRequest(f"--url {text}: {err}") from err
        if scheme not in DEFAULT_PORTS or not host or parts.path.strip("/") or parts.query or parts.fragment:
            raise WrongRequest(f"--url {text}: expected http://HOST:PORT, without a path")
        if parts.username is not None:
            raise WrongRequest("--url: found a user's name; the container's token is taken from VISEME_TOKEN")
        return cls(scheme, host, port or DEFAULT_PORTS[scheme], token)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """Return a connection that opens with its first request."""
        if self.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True)
class Call:
    """A request."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, url: ContainerUrl, timeout_s: float) -> Reply:
        """Send it on a connection of its own. Raises: NoReply."""
        connection = url.connect(timeout_s)
        try:
            return self.send_over(connection, url, timeout_s)
        finally:
            connection.close()

    def send_over(self, connection: http.client.HTTPConnection, url: ContainerUrl, timeout_s: float) -> Reply:
        """Send it on a connection that may be open already. Raises: NoReply."""
        started = time.monotonic()
        try:
            self._send_all(connection, url.headers() | dict(self.headers))
            response = connection.getresponse()
            body = read_all(connection, response, started + timeout_s)
        except http.client.IncompleteRead as err:
            n_expected = len(err.partial) + (err.expected or 0)
            raise NoReply(f"the answer ended after {len(err.partial)} of {n_expected} bytes") from err
        except TimeoutError as err:
            raise NoReply(f"no complete answer after {time.monotonic() - started:.1f} s") from err
        except (OSError, http.client.HTTPException, ValueError) as err:  # ValueError: a malformed length of a chunk
            raise NoReply(str(err) or type(err).__name__) from err
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, body, time.monotonic() - started)

    def _send_all(self, connection: http.client.HTTPConnection, headers: Mapping[str, str]) -> None:
        """Send head and body. A server may answer, and close, before it has read all of a body that it refuses."""
        try:
            connection.request(self.method, self.path, self.body, dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:
                raise


@dataclass(frozen=True)
class Reply:
    """An answer. headers: names in lower case; took_s: from the first byte sent to the last one received."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    took_s: float

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Parse the body. Raises: ValueError if it is not JSON."""
        return json.loads(self.body)

    def quote(self) -> str:
        """Return the status and the start of the body, on one line."""
        text = " ".join(self.body[:200].decode("utf-8", "replace").split())
        return f"{self.status} {text}" if text else f"{self.status} without a body"


def read_all(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return the whole body. deadline: on the clock of `time.monotonic`.

    Raises: TimeoutError; http.client.IncompleteRead if it ends before its declared length, HTTPException if it is
    over the limit.
    """
    pieces, n_bytes = [], 0
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if connection.sock is not None:  # None once the server has announced that it closes the connection
            connection.sock.settimeout(left_s)
        piece = response.read1(READ_BYTES)
        if not piece:
            break
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"the answer has over {MAX_ANSWER_BYTES} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"".join(pieces), response.length)
    response.close()  # otherwise the connection takes no second request
    return b"".join(pieces)


def post(body: bytes, content_type: str, **headers: str) -> Call:
    """Return a request to /invocations. headers: such as Accept."""
    return Call("POST", INVOCATIONS, body, {"Content-Type": content_type} | headers)


PING = Call("GET", "/ping")
