"""A client for the jobs of a server, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from container.rejections import rejection_of
from inference.atomic_write import atomic_file
from inference.errors import InvalidRequest, ServingError, StorageError

JOBS = "/v1/jobs"
TIMEOUT_S = 60.0  # seconds without a byte: an event stream has a comment every 15
PATIENCE_S = 300.0  # seconds that a server which cannot be reached is tried again
RETRY_S = 2.0
CHUNK_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20
MAX_LINE_BYTES = 4 << 20  # of an event
# Statuses below 500 that may pass: a slow body, too early, too many requests, a caller that disconnected.
PASSING = frozenset({408, 425, 429, 499})
CONNECTION_ERRORS = (OSError, http.client.HTTPException)
Fields = dict[str, Any]
T = TypeVar("T")


class ServerUnreachable(ServingError):
    """The connection to the server could not be made, or broke."""


class KeepTokenHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but sends the token to no other host: an output may be in S3."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request to the new URL."""
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and urlsplit(found.full_url)[:2] != urlsplit(req.full_url)[:2]:
            found.remove_header("Authorization")
        return found


@dataclass(frozen=True)
class ServerEvent:
    """Something that happened to a job. id: its sequence number. kind: state, progress or words."""

    id: str
    kind: str
    fields: Fields


class JobServer:
    """The jobs of one server."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        ca_file: Path | None = None,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """ca_file: PEM file of the authority that signed the server's certificate. Raises: InvalidRequest."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidRequest(f"--url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise InvalidRequest("VISEME_TOKEN: expected printable ASCII characters")
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as err:
            raise InvalidRequest(f"--ca-file {ca_file}: cannot be read ({err.strerror or err})") from err
        self._url, self._token = url.rstrip("/"), token
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), KeepTokenHome)
        self._patience_s, self._sleep = patience_s, sleep

    def submit(self, body: Path, headers: dict[str, str]) -> Fields:
        """Submit a job. A try whose answer is lost is repeated: with one Idempotency-Key it remains one job."""
        headers = {"Idempotency-Key": uuid.uuid4().hex} | headers
        headers["Content-Length"] = str(body.stat().st_size)

        def post() -> Fields:
            with body.open("rb") as file, self._open("POST", JOBS, headers, file) as response:
                return read_fields(response)

        return self._persist(post)

    def find(self, job_id: str) -> Fields:
        """Return a job's record."""
        return self._call("GET", job_path(job_id))

    def cancel(self, job_id: str) -> Fields:
        """Cancel a job, and return its record."""
        return self._call("DELETE", job_path(job_id))

    def pages(self, state: str | None, limit: int) -> Iterator[Fields]:
        """Yield up to so many jobs, from the newest to the oldest."""
        query: dict[str, str] = {} if state is None else {"state": state}
        while limit > 0:
            page = self._call("GET", f"{JOBS}?{urlencode(query | {'limit': str(min(limit, 100))})}")
            yield from page["jobs"]
            limit -= len(page["jobs"])
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def log(self, job_id: str, attempt: int) -> str:
        """Return the log of an attempt."""
        with self._open("GET", f"{job_path(job_id)}/logs/{attempt}") as response:
            return response.read().decode(errors="replace")

    def events(self, job_id: str) -> Iterator[ServerEvent]:
        """Yield a job's events until its end; a connection that breaks is continued after the last event.

        Raises: ServerUnreachable if the server stays away for `patience_s`.
        """
        last, lost_at = "", time.monotonic()
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                with self._open("GET", f"{job_path(job_id)}/events", headers) as response:
                    if response.status == HTTPStatus.NO_CONTENT:
                        return
                    for event in read_events(response):
                        last, lost_at = event.id, time.monotonic()
                        yield event
                        if event.fields.get("state") in ("succeeded", "failed", "canceled"):
                            return
                lost_at = time.monotonic()  # the server ended the stream, as it does after an hour
            except ServingError:
                if time.monotonic() - lost_at > self._patience_s:
                    raise
            self._sleep(RETRY_S)

    def download(self, output: Fields, target: Path, on_chunk: Callable[[int], None] = lambda _n: None) -> None:
        """Write an output to a file, which appears when it is complete; a broken download is continued.

        on_chunk: called with the number of bytes so far.
        Raises: StorageError if the file is not the one that the record describes, or cannot be written.
        """
        try:
            with atomic_file(target, make_parents=True) as partial, partial.open("w+b") as file:
                self._persist(lambda: self._fetch(output["url"], file, on_chunk))
                file.seek(0)
                digest = sha256_of(file)
                if digest != output["sha256"]:
                    raise StorageError(f"{output['name']}: the SHA-256 is {digest}; expected {output['sha256']}")
        except OSError as err:
            raise StorageError(f"{target}: could not be written ({err.strerror or err})") from err

    def _fetch(self, path: str, file: IO[bytes], on_chunk: Callable[[int], None]) -> None:
        """Append what is missing of a download."""
        start = file.seek(0, os.SEEK_END)
        with self._open("GET", path, {"Range": f"bytes={start}-"} if start else {}) as response:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                file.seek(0)
                file.truncate()
            n_expected = int(response.headers.get("Content-Length") or -1)
            while chunk := read_chunk(response):
                n_expected -= len(chunk)
                file.write(chunk)
                on_chunk(file.tell())
            if n_expected > 0:
                raise ServerUnreachable(f"{self._url}: the connection broke with {n_expected} bytes to come")

    def _persist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, or the server has failed for `patience_s`. Raises: ServingError; others at once."""
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                return call()
            except ServingError:
                if time.monotonic() > give_up:
                    raise
            self._sleep(RETRY_S)

    def _call(self, method: str, path: str) -> Fields:
        with self._open(method, path) as response:
            return read_fields(response)

    @contextmanager
    def _open(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: IO[bytes] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield a successful response.

        Raises: InvalidRequest if the server rejects the request; ServingError if it fails, ServerUnreachable.
        """
        token = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        url = urljoin(self._url + "/", path.lstrip("/"))
        request = urllib.request.Request(url, body, token | (headers or {}), method=method)  # noqa: S310 - http(s) only
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                yield response
        except urllib.error.HTTPError as err:
            with err:
                raise error_of(err.code, err.read(MAX_JSON_BYTES)) from err
        except urllib.error.URLError as err:
            raise ServerUnreachable(f"{self._url}: cannot be reached ({err.reason})") from err
        except http.client.HTTPException as err:
            raise broken(err) from err


def job_path(job_id: str) -> str:
    return f"{JOBS}/{quote(job_id, safe='')}"


def error_of(status: int, body: bytes) -> InvalidRequest | ServingError:
    """Return the error that a response reports."""
    found = rejection_of(status, body)
    message = f"{found.code}: {found}"
    is_callers = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in PASSING
    return InvalidRequest(message) if is_callers else ServingError(message)


def read_fields(response: http.client.HTTPResponse) -> Fields:
    """Return a response's JSON object. Raises: ServingError if it is not one."""
    try:
        found = json.loads(response.read(MAX_JSON_BYTES))
    except ValueError as err:
        raise ServingError("the server's answer is not JSON; is this the URL of Viseme?") from err
    except CONNECTION_ERRORS as err:
        raise broken(err) from err
    if not isinstance(found, dict):
        raise ServingError("the server's answer is no JSON object; is this the URL of Viseme?")
    return found


def read_events(response: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """Yield the events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Raises: ServerUnreachable if the connection breaks.
    """
    event_id, kind, lines = "", "message", list[str]()
    while line := read_line(response):
        name, _, value = line.rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            lines.append(value)
        elif not name and not value and lines:
            yield ServerEvent(event_id, kind, json.loads("\n".join(lines)))
            kind, lines = "message", []


def read_line(response: http.client.HTTPResponse) -> str:
    try:
        return response.readline(MAX_LINE_BYTES).decode(errors="replace")
    except CONNECTION_ERRORS as err:
        raise broken(err) from err


def read_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except CONNECTION_ERRORS as err:
        raise broken(err) from err


def broken(err: Exception) -> ServerUnreachable:
    return ServerUnreachable(f"the connection to the server broke ({err or type(err).__name__})")


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of a file in hexadecimal digits."""
    digest = sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
