"""Pacing of the requests that are answered at once: thousands of them a second would leave no time for live frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cachetools import LRUCache
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from container.http.clients import client_of
from inference.error_responses import failure_of
from inference.errors import Overloaded

RATE = 256.0  # requests a second of one client
BURST = 512  # requests of one client that are answered at once, as a page that loads all backgrounds
MAX_WAIT_S = 5.0  # for its turn; a request that would wait longer is rejected
MAX_CLIENTS = 4096  # the last ones are remembered
PING = "/ping"
FIRST_ERROR_STATUS = 400


class Pacer:
    """Delays the requests of each client to a rate."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        rate: float = RATE,
        burst: float = BURST,
    ) -> None:
        """Create a pacer.

        now: returns the current time in seconds. sleep: waits that many seconds. rate: requests a second of one client.
        burst: requests that are answered at once.
        """
        self._now, self._sleep = now, sleep
        self._rate, self._burst = rate, burst
        # When the credit of each client is used up: its next request waits until then, less what a burst is worth.
        self._used_until: LRUCache[str, float] = LRUCache(MAX_CLIENTS)

    async def wait(self, client: str) -> None:
        """Return when the client's next request may be answered. Raises: Overloaded if that takes too long."""
        now = self._now()
        used_until = max(self._used_until.get(client, now), now) + 1 / self._rate
        wait_s = used_until - now - self._burst / self._rate
        if wait_s > MAX_WAIT_S:
            raise Overloaded(
                f"your address sends over {self._rate:g} requests a second, which is the limit; retry later"
            )
        self._used_until[client] = used_until
        if wait_s > 0:
            await self._sleep(wait_s)

    async def delay(self, client: str) -> None:
        """Return when an answer that is already made may be sent: at the same pace, and after `MAX_WAIT_S` at most."""
        try:
            await self.wait(client)
        except Overloaded:
            await self._sleep(MAX_WAIT_S)


class PacingMiddleware:
    """Paces the requests of each client, and its WebSocket handshakes. Those to /ping have a pace of their own.

    POSTs are admitted by the number that is in progress; only their errors are paced, most of which cost no work.
    """

    def __init__(self, app: ASGIApp, pacer: Pacer, n_proxies: int = 0, unpaced: frozenset[str] = frozenset()) -> None:
        """See `client_of` for n_proxies. unpaced: paths of POSTs by which SageMaker's platform calls for everybody."""
        self._app, self._pacer, self._n_proxies, self._unpaced = app, pacer, n_proxies, unpaced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = client_of(HTTPConnection(scope), self._n_proxies)
        if scope["type"] == "http" and scope["method"] == "POST":
            is_paced = scope["path"] not in self._unpaced
            await self._app(scope, receive, self._pace_errors(client, send) if is_paced else send)
            return
        try:
            await self._pacer.wait(f"{client} {PING}" if scope["path"] == PING else client)
        except Overloaded as err:
            await reject(err, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _pace_errors(self, client: str, send: Send) -> Send:
        """Return a function that sends, and delays the start of errors. A request holds no place by then."""

        async def send_paced(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= FIRST_ERROR_STATUS:
                await self._pacer.delay(client)
            await send(message)

        return send_paced


async def reject(err: Overloaded, scope: Scope, receive: Receive, send: Send) -> None:
    failure = failure_of(err)
    response = Response(failure.body(), failure.status, headers=failure.headers())
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)
