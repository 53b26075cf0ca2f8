"""A local HTTP server that imitates S3 with one object, and fails on request."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from support.quiet_http import QuietServer


@dataclass
class ErrorResponse:
    """An error response."""

    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FaultyS3:
    """An imitation of S3.

    faults: responses to the next requests, in order: an error response, None for the object, or the number of bytes
    after which the connection breaks.
    """

    contents: bytes
    etag: str = '"version-1"'
    ignores_ranges: bool = False
    faults: list[ErrorResponse | int | None] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # method, range

    def __enter__(self) -> FaultyS3:
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.s3 = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class Server(QuietServer):
    s3: FaultyS3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # else boto3 waits a second for permission to send
    server: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def do_POST(self) -> None:
        self.do_PUT()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        s3 = self.server.s3
        byte_range = self.headers.get("Range")
        s3.requests.append((self.command, byte_range))
        fault = s3.faults.pop(0) if s3.faults else None
        if isinstance(fault, ErrorResponse):
            self._refuse(fault)
        elif self.headers.get("If-Match", s3.etag) != s3.etag:
            self._refuse(ErrorResponse(412, "PreconditionFailed"))
        else:
            self._send(byte_range, fault)

    def _refuse(self, fault: ErrorResponse) -> None:
        body = f"<Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send(self, byte_range: str | None, cut: int | None) -> None:
        s3 = self.server.s3
        body = s3.contents
        if byte_range and not s3.ignores_ranges:
            first, last = byte_range.removeprefix("bytes=").split("-")
            body = body[int(first) : int(last) + 1]
        if self.command == "POST":  # a multipart upload begins or ends
            body = b"<Result><UploadId>1</UploadId><ETag>whole</ETag></Result>"
        self.send_response(206 if byte_range and not s3.ignores_ranges else 200)
        self.send_header("ETag", s3.etag)
        self.send_header("Content-Length", str(len(body) if self.command != "PUT" else 0))
        self.end_headers()
        if self.command in ("GET", "POST"):
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = cut is not None
