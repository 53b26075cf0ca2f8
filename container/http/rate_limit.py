"""The rate at which a client may start work: off unless a setting turns it on."""

from __future__ import annotations

import math
import re
import time

from limits import (
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerHour,
    RateLimitItemPerMinute,
    RateLimitItemPerSecond,
)
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from container.http.auth import check_token
from container.http.clients import client_of
from container.http.generation_errors import error_body
from container.http.responses import UnreadBodyResponse, request_id_of
from inference.error_responses import failure_of
from inference.errors import AccessDenied, InvalidRequest, RateLimited

HOLDER = "holder"  # no address
RATE = re.compile(r"([1-9][0-9]{0,6})/(s|sec|second|min|minute|h|hour|day)")
UNITS: dict[str, type[RateLimitItem]] = {
    "s": RateLimitItemPerSecond,
    "m": RateLimitItemPerMinute,
    "h": RateLimitItemPerHour,
    "d": RateLimitItemPerDay,
}


def parse_rate(text: str) -> RateLimitItem:
    """Parse a rate such as 60/min. Raises: InvalidRequest."""
    match = RATE.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"VISEME_RATE_LIMIT={text!r}: expected a number and a unit, such as 60/min (s, min, h, day)"
        )
    return UNITS[match[2][0]](int(match[1]))


class RateLimitMiddleware:
    """Answers 429 to a client that starts work too often. Only POSTs count: they start work."""

    def __init__(
        self,
        app: ASGIApp,
        rate: RateLimitItem,
        token: str | None = None,
        n_proxies: int = 0,
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        """Limit the rate of each token and address.

        token: of the deployment. n_proxies: see `client_of`. exempt: paths by which SageMaker's platform calls for
        everybody.
        """
        self._app, self._rate, self._token, self._n_proxies, self._exempt = app, rate, token, n_proxies, exempt
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] not in self._exempt:
            connection = HTTPConnection(scope)
            client = caller_of(connection, self._token, self._n_proxies)
            if not self._limiter.hit(self._rate, client):
                await self._reject(connection, client, receive, send)
                return
        await self._app(scope, receive, send)

    async def _reject(self, connection: HTTPConnection, client: str, receive: Receive, send: Send) -> None:
        wait_s = max(math.ceil(self._limiter.get_window_stats(self._rate, client).reset_time - time.time()), 1)
        failure = failure_of(
            RateLimited(f"over {self._rate.amount} requests in {self._rate.get_expiry()} s; retry later")
        )
        headers = failure.headers() | {"retry-after": str(wait_s), "x-request-id": request_id_of(connection)}
        body = error_body(failure, connection.scope["path"])
        response: Response = UnreadBodyResponse(body, failure.status, headers=headers)
        await response(connection.scope, receive, send)


def caller_of(connection: HTTPConnection, token: str | None, n_proxies: int) -> str:
    """Return who calls: the holder of the deployment's token, else an address.

    A token that the deployment does not have counts for nothing: a caller could send another one each time.
    """
    try:
        if token is not None:
            check_token(connection.headers, token)
            return HOLDER
    except AccessDenied:
        pass
    return client_of(connection, n_proxies)
