"""Flow control of WebSocket connections: what ASGI does not expose, and the limits that a server needs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "viseme.transport"  # key of the ClientTransport in the extensions of the ASGI scope
# Two minutes of speech at 16 kHz. A message's declared length is checked against it before anything is buffered.
MAX_MESSAGE_BYTES = 4 << 20
PING_INTERVAL_S = 60.0  # the interval of SageMaker's platform
PONG_TIMEOUT_S = 60.0  # a client that does not answer a ping in this time is disconnected
# Limit of the kernel's buffer of unsent bytes. A larger one would only delay the frames that a slow client sees.
MAX_UNSENT_BYTES = 64 << 10

HANDSHAKE_TIMEOUT_S = 20.0  # for the head of the request; the application has its own time to answer it

# Arguments of uvicorn.Config. No compression: deflate costs 2 ms a frame, and JPEGs get no smaller.
WEBSOCKET_CONFIG: dict[str, Any] = {
    "ws_max_size": MAX_MESSAGE_BYTES,
    "ws_ping_interval": PING_INTERVAL_S,
    "ws_ping_timeout": PONG_TIMEOUT_S,
    "ws_per_message_deflate": False,
}


@dataclass(frozen=True)
class ClientTransport:
    """The transport to one client."""

    writable: asyncio.Event
    transport: asyncio.Transport

    @property
    def is_writable(self) -> bool:
        """Whether the next message is sent at once."""
        return self.writable.is_set()

    async def wait_until_writable(self) -> None:
        """Return when all earlier messages are in the kernel's buffer, so that the next one is sent at once."""
        await self.writable.wait()

    def abort(self) -> None:
        """End the connection at once. Closing it properly would wait forever for a client that does not read."""
        self.transport.abort()


class BackpressureProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, without write buffering, and with its `ClientTransport` in the ASGI scope."""

    def __init__(self, *args: Any, on_lost: Callable[[], None], **kwargs: Any) -> None:
        """on_lost: called once the connection has ended."""
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._last_received_at = self.loop.time()
        self._handshake_timer = self.loop.call_later(HANDSHAKE_TIMEOUT_S, self.transport.abort)
        # high=0 would make asyncio's TLS transport report every write as over the limit.
        self.transport.set_write_buffer_limits(high=1, low=0)
        sock = self.transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()  # first: whatever fails below, the connection is counted no longer
        self._handshake_timer.cancel()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        self._handshake_timer.cancel()
        super().handle_connect(event)
        if self.response.status_code == 101:  # the application's task is created, but has not run yet
            self.scope["extensions"][EXTENSION] = {EXTENSION: ClientTransport(self.writable, self.transport)}

    def data_received(self, data: bytes) -> None:
        self._last_received_at = self.loop.time()
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            # Rejected by the parser, such as a header of over 8 KiB: uvicorn leaves the response unsent.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def keepalive_timeout(self) -> None:
        """Disconnect a client that is gone, but not one that sends faster than the server reads.

        The pong of such a client is queued behind its other messages, so anything received since the ping counts.
        """
        if self._last_received_at > self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()


def transport_of(websocket: WebSocket) -> ClientTransport | None:
    """Return the transport of a connection, or None if its server does not use `BackpressureProtocol`."""
    found: ClientTransport | None = websocket.scope.get("extensions", {}).get(EXTENSION, {}).get(EXTENSION)
    return found
