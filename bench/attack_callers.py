"""Hostile callers for `bench.attack`, on sockets of their own: what an HTTP library would not send."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

LOOPBACK = "127.0.0.1"
HONEST_ADDRESS = "127.0.0.2"  # of the honest caller, so that a server can tell it from the attacker
ANSWER_TIMEOUT_S = 120.0
RETRY_S = 0.5
SLOW_BYTES_PER_S = 12
SLOW_BODY_BYTES = 1_000_000
SMALL_BUFFER_BYTES = 2048
SMALL_SEGMENT_BYTES = 536  # with large segments, loopback sockets buffer megabytes
ONE_BYTE_CHUNK = b"1\r\nx\r\n"
CHUNKS_PER_WRITE = 1 << 16
NICE = 10  # of callers that flood: they take the server's places, not its CPU
PCM_RATE = 16000


@dataclass(frozen=True)
class Reply:
    """An answer. status: 0 if the connection was closed, or nothing came in time."""

    status: int
    body: bytes
    took_s: float


def ask(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    address: str = LOOPBACK,
) -> Reply:
    """Send one request. headers: may set Host. address: the caller's own."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s, source_address=(address, 0))
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found, status = response.read(), response.status
    except (OSError, http.client.HTTPException):
        found, status = b"", 0
    finally:
        connection.close()
    return Reply(status, found, time.monotonic() - started)


def seconds_until_served(port: int, video: bytes, give_up_s: float) -> float | None:
    """Post a video as an honest caller does, again after each 503. Returns: seconds until 200; None if it gave up."""
    started = time.monotonic()
    while (left_s := give_up_s - (time.monotonic() - started)) > 0:
        headers = {"content-type": "video/mp4"}
        reply = ask(port, "POST", "/invocations", headers, video, timeout_s=left_s, address=HONEST_ADDRESS)
        if reply.status == 200:
            return time.monotonic() - started
        time.sleep(RETRY_S)
    return None


def post_head(path: str, *lines: str) -> bytes:
    """Return the head of a POST of a video, with more header lines."""
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: video/mp4", *lines, "", "")).encode()


def dial(port: int, *, is_small: bool = False) -> socket.socket:
    """Connect. is_small: with the smallest buffers, so that an unread answer stays with the server."""
    caller = socket.socket()
    if is_small:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT_BYTES)
    caller.settimeout(10)
    caller.connect((LOOPBACK, port))
    return caller


def seconds_until_closed(port: int, give_up_s: float) -> float | None:
    """Send request headers that never end, one a second. Returns: seconds until the server closes; None if never."""
    started = time.monotonic()
    with dial(port) as caller:
        caller.settimeout(1)
        caller.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() - started < give_up_s:
            try:
                caller.sendall(b"X-More: 1\r\n")
                while caller.recv(4096):
                    pass  # an answer, such as 408
                return time.monotonic() - started
            except TimeoutError:
                continue
            except OSError:
                return time.monotonic() - started
    return None


@contextmanager
def slow_bodies(port: int, n_callers: int) -> Iterator[None]:
    """Keep so many bodies arriving at 12 bytes a second; a caller that is rejected comes again a second later."""
    is_over = threading.Event()
    head = post_head("/invocations", f"Content-Length: {SLOW_BODY_BYTES}")

    def trickle() -> None:
        callers: list[socket.socket | None] = [None] * n_callers
        while not is_over.wait(1):
            for i, caller in enumerate(callers):
                callers[i] = send_slowly(caller, port, head)
        for caller in callers:
            if caller is not None:
                caller.close()

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        time.sleep(2)  # until each has sent its first bytes
        yield
    finally:
        is_over.set()
        thread.join()


def send_slowly(caller: socket.socket | None, port: int, head: bytes) -> socket.socket | None:
    """Send the next bytes, on a new connection if there is none. Returns: None if the server has answered."""
    try:
        if caller is None:
            caller = dial(port)
            caller.sendall(head)
        caller.sendall(b"x" * SLOW_BYTES_PER_S)
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.recv(4096)
            caller.close()
            return None
        caller.settimeout(10)
    except OSError:
        if caller is not None:
            caller.close()
        return None
    return caller


@contextmanager
def unread_answers(port: int, n_callers: int, body: bytes) -> Iterator[None]:
    """Ask so many times for a video and read no answer."""
    head = (
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: video/mp4\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(n_callers):
            caller = stack.enter_context(dial(port, is_small=True))
            with contextlib.suppress(OSError):  # the server may reject and close early
                caller.sendall(head.encode() + body)
        yield


@contextmanager
def idle_connections(port: int, n_tries: int) -> Iterator[int]:
    """Open so many connections from one address and send nothing. Yields: how many stay open."""
    opened: list[socket.socket] = []
    try:
        for _ in range(n_tries):
            with contextlib.suppress(OSError):
                opened.append(dial(port))
        time.sleep(1)  # until the server has closed what it refuses
        yield sum(is_open(one) for one in opened)
    finally:
        for one in opened:
            one.close()


def is_open(caller: socket.socket) -> bool:
    """Return whether a connection on which nothing was sent is open and has no answer, such as a refusal."""
    caller.setblocking(False)
    try:
        caller.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def send_one_byte_chunks(port: int, n_callers: int, seconds: float) -> None:
    """Send bodies in chunks of one byte from so many connections. Target of a process."""
    end = time.monotonic() + seconds
    head = post_head("/invocations", "Transfer-Encoding: chunked")
    chunks = ONE_BYTE_CHUNK * CHUNKS_PER_WRITE

    def send() -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError), dial(port) as caller:
                caller.sendall(head)
                while time.monotonic() < end:
                    caller.sendall(chunks)
            time.sleep(0.05)

    run_in_threads(send, n_callers)


def request_continuously(
    port: int, path: str, n_callers: int, seconds: float, method: str = "GET", lines: tuple[str, ...] = ()
) -> None:
    """Send the same request over and over on connections that stay open. Target of a process. lines: of its head."""
    os.nice(NICE)
    end = time.monotonic() + seconds

    message = "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()

    def request() -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError), dial(port) as caller:
                while time.monotonic() < end:
                    caller.sendall(message)
                    if not skip_answer(caller):
                        break

    run_in_threads(request, n_callers)


def skip_answer(caller: socket.socket) -> bool:
    """Read one answer at the least cost. Returns: whether it was whole, so that another can follow."""
    found = b""
    while (end := found.find(b"\r\n\r\n")) < 0:
        if not (more := caller.recv(1 << 16)):
            return False
        found += more
    length = re.search(rb"content-length: (\d+)", found[:end], re.IGNORECASE)
    n_left = int(length[1]) - (len(found) - end - 4) if length else 0
    while n_left > 0:
        if not (more := caller.recv(1 << 16)):
            return False
        n_left -= len(more)
    return length is not None


def run_in_threads(function: object, n_threads: int) -> None:
    """Run a function in so many threads at once, to its end."""
    assert callable(function)
    threads = [threading.Thread(target=function) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def time_pings(port: int, seconds: float, pause_s: float = 0.02) -> list[float]:
    """Poll /ping. Returns: seconds of each; a ping without an answer counts with the time that it waited."""
    end = time.monotonic() + seconds
    taken = []
    while time.monotonic() < end:
        taken.append(ask(port, "GET", "/ping", timeout_s=30, address=HONEST_ADDRESS).took_s)
        time.sleep(pause_s)
    return taken


def websocket_status(port: int, path: str, headers: Mapping[str, str] | None = None, address: str = LOOPBACK) -> int:
    """Return the status of a WebSocket handshake: 101 if it is accepted, 0 without an answer."""
    caller = open_websocket(port, path, headers, address)
    if isinstance(caller, int):
        return caller
    caller.close()
    return 101


@contextmanager
def many_websockets(
    port: int, path: str, n_tries: int, patience_s: float, headers: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    """Open so many WebSockets as one client, and read all that arrives. Yields: how many opened, of how many tried."""
    opened: list[socket.socket] = []
    is_over = threading.Event()
    reader = threading.Thread(target=read_all, args=(opened, is_over))
    reader.start()
    give_up = time.monotonic() + patience_s
    n_tried = 0
    try:
        while n_tried < n_tries and time.monotonic() < give_up:
            n_tried += 1
            session = open_websocket(port, path, headers)
            if not isinstance(session, int):
                opened.append(session)
        yield len(opened), n_tried
    finally:
        is_over.set()
        reader.join()
        for one in opened:
            one.close()


def read_all(connections: list[socket.socket], is_over: threading.Event) -> None:
    """Read and discard what arrives: a server would close a connection that is not read."""
    ended: set[socket.socket] = set()
    while not is_over.wait(0.01):
        readable, _, _ = select.select([one for one in connections if one not in ended], [], [], 0.1)
        for one in readable:
            try:
                is_open = bool(one.recv(1 << 18))
            except OSError:
                is_open = False
            if not is_open:
                ended.add(one)


def open_websocket(
    port: int, path: str, headers: Mapping[str, str] | None = None, address: str = LOOPBACK
) -> socket.socket | int:
    """Open a WebSocket and leave it unread. Returns: the connection, or the status of its rejection."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {"Host": f"localhost:{port}"} | dict(headers or {})
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    caller = socket.socket()
    try:
        caller.bind((address, 0))
        caller.settimeout(10)
        caller.connect((LOOPBACK, port))
        caller.sendall("\r\n".join((*lines, "", "")).encode())
        status = int(caller.recv(4096).split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        status = 0
    if status == 101:
        return caller
    caller.close()
    return status


def frames_per_second(port: int, seconds: float, warm_up_s: float = 2.0) -> float:
    """Speak to the starter avatar and count the frames that arrive; 0 if no session opens."""
    address = f"ws://{LOOPBACK}:{port}/v1/avatars/starter/session"
    try:
        with connect(address, max_size=None, source_address=(HONEST_ADDRESS, 0), open_timeout=60) as session:
            return count_frames(session, seconds, warm_up_s)
    except (OSError, WebSocketException):
        return 0.0


def count_frames(session: ClientConnection, seconds: float, warm_up_s: float) -> float:
    """Send noise in real time, and return the frames a second after the first `warm_up_s` seconds."""
    noise = np.random.default_rng(0).integers(-8000, 8000, PCM_RATE, np.int16).tobytes()
    started = time.monotonic()
    n_sent_s, n_frames = 0, 0
    while (now_s := time.monotonic() - started) < warm_up_s + seconds:
        if n_sent_s < now_s + 1:  # a second ahead
            session.send(noise)
            n_sent_s += 1
        with contextlib.suppress(TimeoutError):
            message = session.recv(timeout=0.2)
            n_frames += isinstance(message, bytes) and time.monotonic() - started >= warm_up_s
    return n_frames / seconds
