"""Connections, bounded in number as soon as they are accepted: in all, and for each client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from container.http.clients import UNKNOWN, ClientCounter, client_at, is_loopback
from container.http.log_throttle import LogThrottle
from inference.error_responses import failure_of
from inference.errors import Overloaded
from inference.settings import Settings

logger = logging.getLogger("viseme.http")
MAX_CONNECTIONS_PER_CLIENT = 256  # unless a setting says otherwise; a browser opens some ten
RESERVED_FILES = 512  # for bodies, workers and avatars; at most half of all files
TLS_HANDSHAKE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a server accepts. per_client: None for any number.

    has_many_behind_one: whether all callers may have one address: that of SageMaker's platform, or of a reverse proxy.
    """

    total: int
    per_client: int | None = MAX_CONNECTIONS_PER_CLIENT
    limits_loopback: bool = False

    @classmethod
    def of(cls, settings: Settings, max_files: int | None = None) -> Self:
        """Return the limits of a deployment. max_files: that the system lets this process open; None for any number.

        Behind trusted proxies, and on SageMaker, all callers have one address. On this machine a proxy may run, too, so
        it is limited only if a number is set.
        """
        total = settings.max_connections
        if max_files is not None:
            total = max(min(total, max_files - min(RESERVED_FILES, max_files // 2)), 1)
        given = settings.max_connections_per_client
        if settings.trusted_proxies or (given is None and settings.on_sagemaker):
            return cls(total, None)
        return cls(total, given or MAX_CONNECTIONS_PER_CLIENT, limits_loopback=given is not None)

    def of_client(self, client: str) -> int | None:
        """Return how many connections a client may have, or None for any number."""
        return self.per_client if self.limits_loopback or not (client == UNKNOWN or is_loopback(client)) else None


class ConnectionQuota:
    """Counts the connections to all HTTP and WebSocket ports of one server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open = ClientCounter()
        self._counted: set[contextlib.ExitStack] = set()  # a connection that is not referred to would be released
        self._throttle = LogThrottle(logger)

    @property
    def n_open(self) -> int:
        return self._open.total

    def admit(self, client: str) -> Callable[[], None]:
        """Count a connection. Returns: a function that releases it. Raises: Overloaded if there are too many."""
        try:
            return self._count(client)
        except Overloaded as err:
            self._throttle.info("a connection was refused", {"client": client, "reason": str(err)})
            raise

    def _count(self, client: str) -> Callable[[], None]:
        if self.n_open >= self._limits.total:
            raise Overloaded(f"{self.n_open} connections are open, which is the limit; try again later")
        stack = contextlib.ExitStack()
        stack.enter_context(self._open.opened(client, self._limits.of_client(client), "connections"))
        self._counted.add(stack)
        stack.callback(self._counted.discard, stack)
        return stack.close


class AdmissionProtocol(asyncio.Protocol):
    """Admits a connection when it is accepted, does its TLS handshake, and hands it to the HTTP protocol."""

    def __init__(
        self,
        quota: ConnectionQuota,
        context: ssl.SSLContext | None,
        protocol_class: Callable[..., Any],
        **options: Any,
    ) -> None:
        """context: for TLS; None without TLS. protocol_class: is called with the options and `on_lost`."""
        self._quota, self._context, self._protocol_class, self._options = quota, context, protocol_class, options
        self._early = bytearray()  # received before the handshake, and then between its end and the handover
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        try:
            release = self._quota.admit(client_of_transport(transport))
        except Overloaded as err:
            self._refuse(transport, err)
            return
        if self._context is None:
            self._hand_over(transport, release)
            return
        transport.pause_reading()  # until `start_tls` reads; uvloop reads nevertheless
        self._handshake = asyncio.get_running_loop().create_task(self._shake_hands(transport, self._context, release))

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, _exc: Exception | None) -> None:
        """End the handshake: uvloop's never ends if the connection is lost before it starts."""
        if self._handshake is not None:
            self._handshake.cancel()

    def _refuse(self, transport: asyncio.Transport, err: Overloaded) -> None:
        """Answer 503 at once, whatever is requested; with TLS, which costs more than the answer, close."""
        if self._context is not None:
            transport.abort()
            return
        failure = failure_of(err)
        body = failure.body()
        headers = failure.headers() | {"content-length": str(len(body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        transport.write(f"HTTP/1.1 {failure.status} Service Unavailable\r\n{head}\r\n".encode() + body)
        transport.close()

    async def _shake_hands(
        self, transport: asyncio.Transport, context: ssl.SSLContext, release: Callable[[], None]
    ) -> None:
        """Do the handshake and hand the connection over, or release it: however it ends, it is counted no longer."""
        with contextlib.ExitStack() as stack:
            stack.callback(release)
            stack.callback(transport.abort)
            try:
                async with asyncio.timeout(TLS_HANDSHAKE_TIMEOUT_S):
                    secured = await self._secure(transport, context)
            except OSError:  # such as a caller that speaks no TLS, or is late
                return
            if transport.is_closing():  # then the protocol would never get to know that the connection was lost
                return
            protocol = self._hand_over(secured, release)
            stack.pop_all()
        if self._early:
            protocol.data_received(bytes(self._early))

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> asyncio.Transport:
        """Return the transport of what TLS protects. Raises: OSError."""
        loop = asyncio.get_running_loop()
        start = loop.start_tls(
            transport, self, context, server_side=True, ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S
        )
        handshake = loop.create_task(start)
        try:
            await asyncio.sleep(0)  # by then another protocol, that of TLS, reads from the transport
            early, self._early = bytes(self._early), bytearray()
            loop.call_soon(feed, transport.get_protocol(), early)  # after the calls by which that protocol starts
            secured = await handshake
        finally:
            handshake.cancel()
        if secured is None:
            raise ConnectionAbortedError("the connection was lost in its TLS handshake")
        return secured

    def _hand_over(self, transport: asyncio.Transport, release: Callable[[], None]) -> Any:
        protocol = self._protocol_class(on_lost=release, **self._options)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return protocol


def feed(protocol: Any, data: bytes) -> None:
    """Hand bytes to a protocol that reads into buffers, as those of TLS do."""
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        n_bytes = min(len(buffer), len(data))
        buffer[:n_bytes] = data[:n_bytes]
        protocol.buffer_updated(n_bytes)
        data = data[n_bytes:]


def client_of_transport(transport: asyncio.BaseTransport) -> str:
    """Return the client at the other end of a connection."""
    peer = transport.get_extra_info("peername")
    return client_at(str(peer[0])) if isinstance(peer, tuple) and peer else UNKNOWN
