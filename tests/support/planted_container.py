"""A container without models that keeps SageMaker's contract, and one with each of the faults that real ones have.

It knows the clip and the speech of the smoke test, and works as long as their length asks for. Run it as
`python -m support.planted_container FAULT`; its port is SAGEMAKER_BIND_TO_PORT.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import deploy

SMOKE = Path(deploy.__file__).parent / "smoke"  # read here: importing deploy.smoke_test takes a second
CLIP_WORDS, CLIP_FRAMES, SPEECH_FRAMES = "BIN BLUE AT F TWO NOW", 75, 25
MAX_BODY_BYTES = 25 << 20
READ_S, SYNC_S = 0.03, 0.25  # seconds of work: to read the clip, and for each second of speech
DEADLINE_S = 4.0
N_PLACES = 9
LOAD_S = 0.5  # until the models are loaded
CLIP_BYTES = (SMOKE / "clip.mp4").read_bytes()
SPEECH_BYTES = (SMOKE / "speech.wav").stat().st_size
JSON = "application/json"
ANSWERS = {"text/plain": CLIP_WORDS.encode(), "text/vtt": b"WEBVTT\n\n" + CLIP_WORDS.encode()}
MP4 = bytes(4) + b"ftyp" + bytes(100_000)


class Refused(Exception):
    """A request with an error. status, code: of the answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class State:
    """What all requests share."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.worker = threading.Lock()
        self.places = threading.Semaphore(N_PLACES)
        self.changed = threading.Condition()
        self.n_running = 0
        self.is_draining = False

    @contextlib.contextmanager
    def running(self):
        with self.changed:
            self.n_running += 1
        try:
            yield
        finally:
            with self.changed:
                self.n_running -= 1
                self.changed.notify_all()


class Container(BaseHTTPRequestHandler):
    """The contract as it should be kept."""

    protocol_version = "HTTP/1.1"
    server_type = ThreadingHTTPServer
    host = "0.0.0.0"
    read_s = READ_S
    words = CLIP_WORDS
    max_body_bytes = MAX_BODY_BYTES
    state: State

    @staticmethod
    def choose_port(port: int) -> int:
        return port

    @classmethod
    def on_sigterm(cls, server: HTTPServer) -> None:
        """Finish what is under way, then stop."""
        cls.state.is_draining = True
        with cls.state.changed:
            cls.state.changed.wait_for(lambda: not cls.state.n_running)
        server.shutdown()

    def ping_status(self) -> int:
        return 503 if self.state.is_draining or not self.is_loaded else 200

    @property
    def is_loaded(self) -> bool:
        return time.monotonic() >= self.state.started + LOAD_S

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.respond(self.ping_status(), b"", "text/plain")
        else:
            self.refuse(Refused(405 if self.path == "/invocations" else 404, "invalid_request"))

    def do_POST(self) -> None:
        with self.state.running():
            try:
                body = self.read_body()
                self.enter()
                try:
                    answer, content_type = self.answer(body)
                finally:
                    self.state.places.release()
            except Refused as err:
                self.refuse(err)
            except ConnectionError:
                self.close_connection = True
            else:
                self.respond(200, answer, content_type)

    def read_body(self) -> bytes:
        n_bytes = int(self.headers["Content-Length"])
        if n_bytes > self.max_body_bytes:
            self.refuse_large_body(n_bytes)
        self.connection.settimeout(2.0)
        try:
            body = self.rfile.read(n_bytes)
        except TimeoutError as err:
            self.close_connection = True
            raise Refused(408, "deadline_exceeded") from err
        self.connection.settimeout(None)
        return body

    def refuse_large_body(self, n_bytes: int) -> None:
        self.rfile.read(n_bytes)
        raise Refused(413, "media_too_large")

    def enter(self) -> None:
        """Take a place, or refuse the request at once."""
        if not self.is_loaded or self.state.is_draining or not self.state.places.acquire(blocking=False):
            raise Refused(503, "overloaded")

    def answer(self, body: bytes) -> tuple[bytes, str]:
        content_type, accept = self.headers["Content-Type"], self.choose_type()
        if content_type == JSON:
            return self.sync(body, accept)
        if content_type != "video/mp4":
            raise Refused(415, "unsupported_content_type")
        if not body.startswith(CLIP_BYTES):
            raise Refused(400, "unsupported_media")
        self.work(self.read_s)
        read = {"status": "success", "text": self.words, "num_frames": CLIP_FRAMES, "model": {"weights": "starter"}}
        return ANSWERS.get(accept) or json.dumps(read).encode(), accept

    def choose_type(self) -> str:
        accept = self.headers.get("Accept", JSON)
        known = [one for one in (JSON, "text/plain", "text/vtt", "video/mp4") if one in accept]
        if not known:
            raise Refused(415, "unsupported_content_type")
        return known[0]

    def sync(self, body: bytes, accept: str) -> tuple[bytes, str]:
        try:
            audio = base64.b64decode(json.loads(body)["audio"])
        except (ValueError, KeyError) as err:
            raise Refused(400, "invalid_request") from err
        n_repeats = round(len(audio) / SPEECH_BYTES)
        self.work(SYNC_S * n_repeats)
        video = base64.b64encode(MP4).decode()
        output = {"model": "starter", "num_frames": SPEECH_FRAMES * n_repeats, "video": video}
        made = json.dumps({"status": "success", "outputs": [output]}).encode()
        return (MP4, accept) if accept == "video/mp4" else (made, JSON)

    def work(self, took_s: float) -> None:
        """Use the only worker for so long, unless the caller leaves or the deadline passes."""
        with self.state.worker:
            end = time.monotonic() + took_s
            deadline = time.monotonic() + DEADLINE_S
            while (now := time.monotonic()) < end:
                if now > deadline:
                    raise Refused(504, "deadline_exceeded")
                if select.select([self.connection], [], [], 0.01)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError

    def refuse(self, err: Refused) -> None:
        self.respond(err.status, *self.error_body(err))

    def error_body(self, err: Refused) -> tuple[bytes, str]:
        return json.dumps({"status": "error", "error": {"code": err.code, "message": f"found {err}"}}).encode(), JSON

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "5")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


class ReadyTooEarly(Container):
    """As Multi Model Server does: /ping is 200 as soon as the port is open."""

    def ping_status(self) -> int:
        return 200


class NeverReady(Container):
    def ping_status(self) -> int:
        return 500


class NeedsToken(Container):
    """Requests without the token are refused, as with VISEME_TOKEN."""

    def enter(self) -> None:
        if self.headers.get("Authorization") != "Bearer secret":
            raise Refused(401, "unauthorized")
        super().enter()


class BusyAtFirst(Container):
    """Others use the only place at first."""

    n_refused = 0

    def enter(self) -> None:
        if BusyAtFirst.n_refused < 2:
            BusyAtFirst.n_refused += 1
            raise Refused(503, "overloaded")
        super().enter()


class PingWithBody(Container):
    def respond(self, status: int, body: bytes, content_type: str) -> None:
        super().respond(status, body or b'{"status": "Healthy"}', content_type)


class OneThread(Container):
    """A server whose models run in its event loop: /ping waits behind them."""

    protocol_version = "HTTP/1.0"  # a connection per request, since there is one thread for all
    server_type = HTTPServer
    read_s = 0.2


class ErrorsAreSuccesses(Container):
    """The mistakes of callers are 200, with the error in the body."""

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        super().respond(200 if 400 <= status < 408 or status == 415 else status, body, content_type)


class ErrorsAre400(Container):
    """As the Hugging Face toolkit does for all that a handler raises."""

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        super().respond(400 if 400 <= status < 500 else status, body, content_type)


class ErrorsAre500(Container):
    """As frameworks do for what a handler raises."""

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        super().respond(500 if status in (400, 415) else status, body, content_type)


class HtmlErrors(Container):
    """As frameworks do by default."""

    def error_body(self, err: Refused) -> tuple[bytes, str]:
        return f"<html><body><h1>{err.status}</h1></body></html>".encode(), "text/html"


class LeaksTracebacks(Container):
    """The message is the traceback, as Multi Model Server with the inference toolkit sends it."""

    def error_body(self, err: Refused) -> tuple[bytes, str]:
        message = "".join(traceback.format_exception(err))
        return json.dumps({"error": {"code": err.code, "message": message}}).encode(), JSON


class HangsWhenFull(Container):
    """A request for which there is no place waits for ever."""

    def enter(self) -> None:
        if not self.state.places.acquire(blocking=False):
            with self.state.changed:
                self.state.n_running -= 1  # so that SIGTERM does not wait for it
            time.sleep(3600)


class TruncatesLargeAnswers(Container):
    """The connection ends after 64 KiB of an answer."""

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        if len(body) <= 1 << 16:
            super().respond(status, body, content_type)
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: 1 << 16])
        self.close_connection = True


class WrongWords(Container):
    words = "SET RED IN Q SIX SOON"


class WrongTypes(Container):
    """Accept is ignored."""

    def choose_type(self) -> str:
        super().choose_type()
        return JSON


class SmallBodies(Container):
    """Multi Model Server's default limit."""

    max_body_bytes = 6_553_500


class ResetsLargeBodies(Container):
    """The connection is closed with bytes unread, so that the answer is lost."""

    def refuse_large_body(self, n_bytes: int) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError


class IgnoresSigterm(Container):
    """As a shell does that starts a server without `exec`."""

    @classmethod
    def on_sigterm(cls, server: HTTPServer) -> None:
        cls.state.is_draining = True


class CutsRequests(Container):
    @classmethod
    def on_sigterm(cls, server: HTTPServer) -> None:
        os._exit(0)


class ListensOnLoopback(Container):
    host = "127.0.0.1"


class ListensElsewhere(Container):
    """SAGEMAKER_BIND_TO_PORT is ignored."""

    @staticmethod
    def choose_port(port: int) -> int:
        return 0


class DiesAtStart(Container):
    @staticmethod
    def choose_port(port: int) -> int:
        raise SystemExit("no module named torch")


def main(fault: str) -> None:
    handler: type[Container] = globals()[fault]
    handler.state = State()
    handler.server_type.request_queue_size = 128
    server = handler.server_type(
        (handler.host, handler.choose_port(int(os.environ["SAGEMAKER_BIND_TO_PORT"]))), handler
    )
    server.daemon_threads = True
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in all threads: this one waits for it
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    signal.sigwait({signal.SIGTERM})
    handler.on_sigterm(server)
    serving.join()


if __name__ == "__main__":
    main(sys.argv[1])
