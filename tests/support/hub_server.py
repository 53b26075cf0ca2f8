"""A local server with the Hugging Face Hub's routes, for tests.

Source: what huggingface_hub reads, in 0.30.0 and 2.4.0: `get_hf_file_metadata` and `http_get` in file_download.py (the
headers of a file, and of one in Git LFS, whose answer is a redirect to another host), `hf_raise_for_status` in
utils/_http.py (X-Error-Code, and 401 for what an anonymous caller may not see), `model_info` and `ModelInfo` in
hf_api.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from support.quiet_http import QuietServer

LFS_BYTES = 10 << 20  # files of at least this size are in Git LFS: the Hub's limit for files in Git


@dataclass
class Repository:
    """A repository of the fake Hub. commit: the head of `main`; every commit has the current files."""

    commit: str
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)  # in Git LFS, by SHA-256


@dataclass
class HubServer:
    """The fake Hub.

    cuts: after how many bytes each of the next GETs of a file breaks off; GETs after them are complete.
    seen: the requests so far: method, path, headers.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        self._server = HubHttpServer(("127.0.0.1", 0), Handler)
        self._server.hub = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def gets(self, path: str = "") -> list[dict[str, str]]:
        """Return the headers of every GET whose path contains this text."""
        return [headers for method, found, headers in self.seen if method == "GET" and path in found]


class HubHttpServer(QuietServer):
    hub: HubServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        self.server.hub.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/?]+))?(\?.*)?", self.path):
            repository = self.find(match[1], match[2] or "main")
            if repository:
                siblings = [{"rfilename": name} for name in repository.files]
                about = {"_id": "1", "id": match[1], "sha": repository.commit, "siblings": siblings}
                self.send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        elif match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path):
            repository = self.find(match[1], match[2])
            if repository:
                self.send_file(repository, match[3])
        elif match := re.fullmatch(r"/lfs/(.+)/([^/]+)", self.path):
            self.send_contents(self.server.hub.repositories[match[1]].stored[match[2]], {})
        else:
            self.send(404, b"no such route", {})

    def find(self, name: str, revision: str) -> Repository | None:
        repository = self.server.hub.repositories.get(name)
        is_anonymous = "authorization" not in self.server.hub.seen[-1][2]
        if repository is None or (repository.private and is_anonymous):
            self.send(401 if is_anonymous else 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and is_anonymous:
            self.send(401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", repository.commit):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def send_file(self, repository: Repository, name: str) -> None:
        headers = {"X-Repo-Commit": repository.commit}
        contents = repository.files.get(name)
        if contents is None:
            self.send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            return
        sha256 = hashlib.sha256(contents).hexdigest()
        if len(contents) < LFS_BYTES:
            self.send_contents(contents, headers | {"ETag": f'"{sha256}"'})
            return
        repository.stored[sha256] = contents
        found = re.fullmatch(r"/(.+)/resolve/.*", self.path)
        location = f"http://localhost:{self.server.server_address[1]}/lfs/{found[1]}/{sha256}"  # another host
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(contents)), "Location": location}
        self.send(302, b"Found. Redirecting", headers)

    def send_contents(self, contents: bytes, headers: dict[str, str]) -> None:
        headers = headers | {"Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start:
            first = int(start[1])
            headers["Content-Range"] = f"bytes {first}-{len(contents) - 1}/{len(contents)}"
            self.send(206, contents[first:], headers)
        else:
            self.send(200, contents, headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if status in (200, 206) and "Accept-Ranges" in headers and self.server.hub.cuts:
            self.wfile.write(body[: self.server.hub.cuts.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)
