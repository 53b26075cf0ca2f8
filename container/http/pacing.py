"""Pacing of the requests that are answered at once: thousands of them a second would leave no time for live frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cachetools import LRUCache
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from container.http.clients import client_of
from inference.error_responses import failure_of
from inference.errors import Overloaded

RATE = 256.0  # requests a second of one client
BURST = 512  # requests of one client that are answered at once, as a page that loads all backgrounds
MAX_WAIT_S = 5.0  # for its turn; a request that would wait longer is rejected
MAX_CLIENTS = 4096  # the last ones are remembered
UNPACED_METHODS = ("POST",)  # they are admitted by the number that is in progress
PING = "/ping"


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


class PacingMiddleware:
    """Paces the requests of each client, and its WebSocket handshakes. Those to /ping have a pace of their own."""

    def __init__(self, app: ASGIApp, pacer: Pacer, n_proxies: int = 0) -> None:
        """See `client_of` for n_proxies."""
        self._app, self._pacer, self._n_proxies = app, pacer, n_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in UNPACED_METHODS):
            client = client_of(HTTPConnection(scope), self._n_proxies)
            try:
                await self._pacer.wait(f"{client} {PING}" if scope["path"] == PING else client)
            except Overloaded as err:
                await reject(err, scope, receive, send)
                return
        await self._app(scope, receive, send)


async def reject(err: Overloaded, scope: Scope, receive: Receive, send: Send) -> None:
    failure = failure_of(err)
    response = Response(failure.body(), failure.status, headers=failure.headers())
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)
