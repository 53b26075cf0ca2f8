"""The WebSocket connection under ASGI: what a live session has to know of it, and a server has to bound."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINE = "viseme.line"  # under the scope's extensions
# Two minutes of speech at 16 kHz. The declared length of a message is compared with it before anything is kept.
MAX_MESSAGE = 4 << 20  # bytes
PING_S = 60.0  # as SageMaker's platform does
PONG_S = 60.0  # for the answer: a client that is gone is dropped then
# What the kernel takes beyond what the network has taken. More would only make what a slow client sees older.
UNSENT = 64 << 10  # bytes

# For uvicorn.Config. Deflate costs 2 ms a frame, and JPEGs get no smaller.
WEBSOCKET_CONFIG: dict[str, Any] = {
    "ws_max_size": MAX_MESSAGE,
    "ws_ping_interval": PING_S,
    "ws_ping_timeout": PONG_S,
    "ws_per_message_deflate": False,
}


@dataclass(frozen=True)
class Line:
    """The client's side of a connection."""

    writable: asyncio.Event
    transport: asyncio.Transport

    async def wait(self) -> None:
        """Return when all that was sent before is on its way, so that the next message goes at once."""
        await self.writable.wait()

    def cut(self) -> None:
        """End the connection at once. To close it would wait for ever for a client that reads nothing."""
        self.transport.abort()


class LineProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, with nothing kept for slow clients, and its `Line` in the scope."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        self.transport.set_write_buffer_limits(high=1, low=0)  # with 0, TLS would take nothing for too much
        one = self.transport.get_extra_info("socket")
        if one is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # the application's task was made, and has not begun
            self.scope["extensions"][LINE] = {LINE: Line(self.writable, self.transport)}

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """Cut off who is gone; not who has more to say than we take, as its answer lies behind all of that."""
        if self._heard_at > self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()
