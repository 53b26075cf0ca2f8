"""The port of the older proxy: its WebSocket, its health, and a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from container.live.legacy.server import MINIMAL, OPTIMIZED, PROXY, Dialect

if TYPE_CHECKING:
    from container.stream import Live

# By their place in `legacy_ports`.
DIALECTS = (MINIMAL, OPTIMIZED, PROXY)


def legacy_app(live: Live, place: int) -> Starlette:
    """What is served on one of the older ports, given its place among them."""
    dialect = DIALECTS[place]
    routes = legacy_routes(live, dialect)
    if dialect is PROXY:
        routes += [Route("/health", lambda request: tell_health(live, request)), *live.page_routes()]
    return Starlette(routes=routes)


def legacy_routes(live: Live, dialect: Dialect) -> list[BaseRoute]:
    """Older clients connect to `/`, those of the proxy to `/ws`."""

    async def serve(socket: WebSocket) -> None:
        await live.serve_old_client(socket, dialect)

    return [WebSocketRoute("/", serve), WebSocketRoute("/ws", serve)]


def tell_health(live: Live, _request: Request) -> Response:
    """The proxy passed requests on to servers elsewhere; here the only one is this process."""
    is_healthy = not live.is_draining
    backend: dict[str, Any] = {
        "address": "in-process",
        "healthy": is_healthy,
        "total_requests": live.old_clients.n_requests,
        "error_count": live.old_clients.n_failed,
    }
    body = {"healthy": is_healthy, "total_backends": 1, "healthy_count": int(is_healthy), "backends": [backend]}
    return JSONResponse(body, 200 if is_healthy else 503)
