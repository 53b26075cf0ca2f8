"""Access to every route of every HTTP port, checked before anything of a request but its head is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from container.http.auth import check_origin, check_token
from container.http.generation_errors import error_body
from container.http.hosts import check_host, is_bound_to_loopback
from container.http.log_throttle import LogThrottle
from container.http.responses import UnreadBodyResponse, request_id_of
from container.http.static_page import FILES, OPENAPI_PATH
from inference.error_responses import failure_of
from inference.errors import AccessDenied
from inference.settings import Settings

logger = logging.getLogger("viseme.http")
PING = "/ping"
STATUS_PATHS = ("/health", "/metrics")
# They start no work, so a link on another site may lead to them. Pages of other sites cannot read what they return.
READABLE_PATHS = frozenset({PING, *STATUS_PATHS, *FILES, OPENAPI_PATH})
PLATFORM_PATHS = frozenset({PING, "/invocations", "/invocations-bidirectional-stream"})  # those that SageMaker calls


@dataclass(frozen=True)
class AccessRules:
    """Which requests a server accepts by their Host, Origin and token.

    is_local: whether the server is bound to a loopback address. is_on_sagemaker: whether only SageMaker's platform can
    reach it. allowed_hosts: names besides the loopback ones; "*" allows all.
    """

    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    is_local: bool = True
    is_on_sagemaker: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules of a deployment.

        The platform cannot reach a loopback address, so a server there is not on SageMaker, whatever the setting: a
        variable such as SAGEMAKER_BIND_TO_PORT turns it on, and so does `--aws-routes`.
        """
        is_local = is_bound_to_loopback(settings.host)
        is_on_sagemaker = settings.on_sagemaker and not is_local
        return cls(settings.token, settings.allowed_hosts, settings.allowed_origins, is_local, is_on_sagemaker)

    def check(self, connection: HTTPConnection) -> None:
        """Check the head of a request. Raises: AccessDenied.

        The token is checked here for the status routes only: every other one that needs it checks it itself.
        """
        path, headers = connection.scope["path"], connection.headers
        if self.is_on_sagemaker and path in PLATFORM_PATHS:
            return
        if self._needs_host(path):
            check_host(headers, self.allowed_hosts)
        if not is_readable(connection.scope):
            check_origin(headers, self.token, self.allowed_origins)
        if path in STATUS_PATHS:
            check_token(headers, self.token)

    def _needs_host(self, path: str) -> bool:
        """Return whether the Host is checked. Load balancers check /ping by address, at servers that others reach."""
        if "*" in self.allowed_hosts:
            return False
        return self.is_local or bool(self.allowed_hosts and path != PING)


class AccessMiddleware:
    """Answers 403 to requests that the rules deny, before they reach a route."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app, self._rules = app, rules
        self._throttle = LogThrottle(logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self._rules.check(HTTPConnection(scope))
            except AccessDenied as err:
                await deny(err, scope, receive, send, self._throttle)
                return
        await self._app(scope, receive, send)


def is_readable(scope: Scope) -> bool:
    """Return whether a request only reads what pages of other sites may link to."""
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in READABLE_PATHS


async def deny(err: AccessDenied, scope: Scope, receive: Receive, send: Send, throttle: LogThrottle) -> None:
    """Log a request, or a WebSocket handshake, that is denied, and send its response."""
    failure, request_id = failure_of(err), request_id_of(HTTPConnection(scope))
    extra = {"status": failure.status, "code": failure.code, "reason": failure.message, "request_id": request_id}
    throttle.info("a request was denied", extra)
    response_class = UnreadBodyResponse if scope["type"] == "http" else Response
    headers = failure.headers() | {"x-request-id": request_id}
    response = response_class(error_body(failure, scope["path"]), failure.status, headers=headers)
    if scope["type"] == "http":
        await response(scope, receive, send)
    else:
        await WebSocket(scope, receive, send).send_denial_response(response)
