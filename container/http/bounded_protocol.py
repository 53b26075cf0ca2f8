"""The HTTP protocol of every port: uvicorn's, with bounds on what a slow or hostile client can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from container.http.responses import CLOSE_EXTENSION
from inference.error_responses import Failure

# Bytes parsed at once: less than a millisecond even in chunks of one byte.
FEED_BYTES = 16 << 10
# Pieces of a body parsed before the event loop turns to other connections; uvloop alone would read and parse up to 8 MB
# of one connection before.
MAX_PIECES = 64
MAX_HEAD_BYTES = 64 << 10  # bytes of a request's head, of the trailers, or of the extensions of a chunk


@dataclass(frozen=True)
class ConnectionTimeouts:
    """Seconds that one connection may keep the server waiting. Idle connections have uvicorn's keep-alive timeout."""

    head_s: float = 20.0  # for a request's head, from its first byte
    unread_body_s: float = 10.0  # for the rest of a body that was answered before its end
    unsent_s: float = 60.0  # without the client taking a single byte of what is sent
    flush_s: float = 300.0  # for the last bytes of an answer, a few hundred kilobytes, that wait in the transport


class ReadFlow(FlowControl):
    """uvicorn's flow control, which leaves it to the protocol when reading is resumed."""

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._on_resume()


def ignore_end() -> None:
    """Do nothing, if connections are not counted."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with deadlines, a limit on heads, and little work per event.

    httptools and not h11, which takes 65 times as long for a chunk of one byte: 1 MB/s of them would fill a core.
    """

    timeouts = ConnectionTimeouts()

    def __init__(self, *args: Any, on_lost: Callable[[], None] = ignore_end, **kwargs: Any) -> None:
        """on_lost: called once the connection has ended, also after it was upgraded to a WebSocket."""
        self._pieces: list[bytes] = []  # of a body, from the bytes that are being parsed
        # The parser calls it for every chunk; a function in Python would take ten times as long.
        self.on_body = self._pieces.append  # type: ignore[assignment]
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = partial(self.ws_protocol_class, on_lost=on_lost)  # type: ignore[assignment, call-arg]
        self._received = memoryview(b"")  # not parsed yet
        self._next_feed: asyncio.Handle | None = None
        self._is_reading = True
        self._in_body = False  # between a request's head and the end of its body
        self._n_messages = 0  # requests that were received to their end
        self._n_overhead = 0  # bytes of the head so far; in a body, bytes since the last one of the body itself
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._unsent_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = ReadFlow(transport, self._schedule_feed)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()  # first: whatever fails below, the connection is counted no longer
        self._stop_timers()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._body_timer, self._unsent_timer, self._flush_timer, self._next_feed):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = self._unsent_timer = self._flush_timer = self._next_feed = None

    @property
    def n_unsent(self) -> int:
        """Bytes of answers that wait for the client."""
        return self.transport.get_write_buffer_size()

    def close(self) -> None:
        """Close the connection once the client has taken what was sent, or does not take it in time."""
        self.transport.close()
        self._watch_flush()

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Parse the first bytes now, and the others as the event loop gets to it; until then nothing is read."""
        self._received = memoryview(bytes(self._received) + data if self._received else data)
        if self._next_feed is None:
            self._feed()

    def _schedule_feed(self) -> None:
        if self._next_feed is None and not self.transport.is_closing():
            self._next_feed = self.loop.call_soon(self._feed)

    def _feed(self) -> None:
        self._next_feed = None
        n_pieces = 0
        while self._received and n_pieces < MAX_PIECES and self._may_read():
            n_pieces += self._feed_some()
            if self.transport.get_protocol() is not self:
                self._leave_to_websocket()
                return
        if self.transport.is_closing():
            self._received = memoryview(b"")
            return
        self._set_reading(self._may_read() and not self._received)
        if self._received and self._may_read():
            self._schedule_feed()

    def _feed_some(self) -> int:
        """Parse up to `FEED_BYTES`. Returns: how many pieces of a body they held."""
        fed, self._received = self._received[:FEED_BYTES], self._received[FEED_BYTES:]
        n_messages = self._n_messages
        super().data_received(fed)  # type: ignore[arg-type]  # the parser takes any buffer
        n_pieces = len(self._pieces)
        self._add_pieces()
        self._watch_received(len(fed), has_ended=self._n_messages != n_messages)
        return n_pieces

    def _may_read(self) -> bool:
        """Whether the application takes more. Requests sent before the answer to an earlier one wait unread."""
        return not (self.flow.read_paused or self.pipeline or self.transport.is_closing())

    def _set_reading(self, is_reading: bool) -> None:
        if is_reading != self._is_reading:
            self._is_reading = is_reading
            if is_reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _leave_to_websocket(self) -> None:
        self._stop_timers()
        if not self.transport.is_closing():
            self._set_reading(True)

    def _watch_received(self, n_bytes: int, *, has_ended: bool) -> None:
        """Bound the time and the size of a head, and the size of what is in a body but not its contents.

        has_ended: whether a request ended in these bytes. If nothing of another one followed, the connection is idle.
        """
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        is_idle = has_ended and not self._in_body and not self._n_overhead
        if is_idle or self._in_body:
            self._set_head_timer(None)
        elif self._head_timer is None or has_ended:
            self._set_head_timer(self.timeouts.head_s)
        if not is_idle:
            self._n_overhead += n_bytes
        if self._n_overhead > MAX_HEAD_BYTES:
            self._reject(431, "invalid_request", f"the request has a head of over {MAX_HEAD_BYTES} bytes")

    def _set_head_timer(self, after_s: float | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = None if after_s is None else self.loop.call_later(after_s, self._on_late_head)

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self._is_answering():  # the head is of the next request; the answer has deadlines of its own
            self._set_head_timer(self.timeouts.head_s)
            return
        self._reject(408, "deadline_exceeded", f"the request's head did not arrive within {self.timeouts.head_s:g} s")

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _reject(self, status: int, code: str, message: str) -> None:
        """Send an error, unless an answer is being sent, and close the connection."""
        if self._is_answering():
            self.transport.abort()
            return
        failure = Failure(status, code, message)
        body = failure.body()
        headers = failure.headers() | {"content-length": str(len(body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + head.encode() + b"\r\n" + body)
        self.close()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._n_overhead = 1  # the connection is not idle
        super().on_message_begin()
        self.scope["extensions"] = {CLOSE_EXTENSION: {"close": self.close}}

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # otherwise a trailer, which is ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        n_hosts = sum(name == b"host" for name, _ in self.headers)
        if n_hosts > 1 or (n_hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError(f"{n_hosts} Host headers; expected 1")  # a 400, as RFC 9112 3.2 demands
        self._in_body, self._n_overhead = True, 0
        super().on_headers_complete()

    def _add_pieces(self) -> None:
        if self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            self._n_overhead = 0
            HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        self._add_pieces()
        self._in_body, self._n_overhead = False, 0
        self._n_messages += 1
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    # Sending

    def on_response_complete(self) -> None:
        """Bound the rest of the request's body, and the time for the client to take the answer."""
        is_unread = self._in_body and self.cycle.response_complete
        super().on_response_complete()
        self._watch_flush()
        if self.transport.is_closing():
            return
        if is_unread and self._body_timer is None:
            self._body_timer = self.loop.call_later(self.timeouts.unread_body_s, self.transport.abort)
        self._schedule_feed()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._watch_flush()

    def shutdown(self) -> None:
        super().shutdown()
        self._watch_flush()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_unsent()

    def _watch_flush(self) -> None:
        """Bound the time for what is left of an answer, beside the time without a byte taken."""
        self._watch_unsent()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = self.loop.call_later(self.timeouts.flush_s, self._on_unflushed) if self.n_unsent else None

    def _on_unflushed(self) -> None:
        self._flush_timer = None
        if self.n_unsent and not self._is_answering():  # otherwise the end of the next answer starts it again
            self.transport.abort()

    def _watch_unsent(self) -> None:
        """Start to count the seconds in which the client takes nothing."""
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None
        if n_unsent := self.n_unsent:
            self._unsent_timer = self.loop.call_later(self.timeouts.unsent_s, self._on_unsent, n_unsent)

    def _on_unsent(self, n_before: int) -> None:
        """Abort the connection if the client took nothing: closing would wait for it forever."""
        self._unsent_timer = None
        may_have_grown = self._is_answering() and not self.flow.write_paused and not self.transport.is_closing()
        if may_have_grown or self.n_unsent < n_before:
            self._watch_unsent()
        else:
            self.transport.abort()
