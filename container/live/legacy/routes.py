"""The routes and ports of older clients: WebSockets, and on the old proxy's port its health check and a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from container.live.legacy.server import MINIMAL, OPTIMIZED, PROXY, LegacyProtocol, LegacyServer

PROTOCOLS = (MINIMAL, OPTIMIZED, PROXY)  # by index in the setting `legacy_ports`
# Accepts a connection, or rejects it; returns whether it was accepted.
Admit = Callable[[WebSocket], Awaitable[bool]]
ClientOf = Callable[[WebSocket], str]  # returns the client that a connection comes from


def legacy_app(
    legacy: LegacyServer,
    index: int,
    admit: Admit,
    client_of: ClientOf,
    is_draining: Callable[[], bool],
    page_routes: Sequence[BaseRoute],
) -> Starlette:
    """Return the application of one legacy port.

    index: of the port in the setting `legacy_ports`. page_routes: served on the proxy's port.
    """
    protocol = PROTOCOLS[index]
    routes = legacy_routes(legacy, protocol, admit, client_of)
    if protocol is PROXY:

        def health(_request: Request) -> Response:
            return health_response(legacy, is_healthy=not is_draining())

        routes += [Route("/health", health), *page_routes]
    return Starlette(routes=routes)


def legacy_routes(legacy: LegacyServer, protocol: LegacyProtocol, admit: Admit, client_of: ClientOf) -> list[BaseRoute]:
    """Return the WebSocket routes: older clients connect to `/`, those of the proxy to `/ws`."""

    async def serve(socket: WebSocket) -> None:
        if await admit(socket):
            await legacy.serve(socket, protocol, client_of(socket))

    return [WebSocketRoute("/", serve), WebSocketRoute("/ws", serve)]


def health_response(legacy: LegacyServer, *, is_healthy: bool) -> Response:
    """Return the proxy's health report. The proxy had several backends; here this process is the only one."""
    backend: dict[str, Any] = {
        "address": "in-process",
        "healthy": is_healthy,
        "total_requests": legacy.n_requests,
        "error_count": legacy.n_failed,
    }
    body = {"healthy": is_healthy, "total_backends": 1, "healthy_count": int(is_healthy), "backends": [backend]}
    return JSONResponse(body, 200 if is_healthy else 503)
