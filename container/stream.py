"""Live avatars over WebSocket: sessions, SageMaker's bidirectional stream, and the HTTP routes of the web page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from container.http.access import AccessMiddleware, AccessRules
from container.http.auth import check_token, choose_subprotocol
from container.http.clients import ClientCounter, client_of, is_loopback
from container.http.pacing import Pacer, PacingMiddleware
from container.http.responses import http_error
from container.http.static_page import LEGACY_VIEWS, no_origin, page_routes
from container.live.avatar_cache import AvatarCache
from container.live.background_cache import BackgroundCache, EncodedBackground
from container.live.connection import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    SERVICE_RESTART,
    STALL_TIMEOUT_S,
    CloseReason,
    SessionConnection,
)
from container.live.frame_clock import FrameClock
from container.live.frame_counts import FrameCounts
from container.live.frame_encoder import FrameEncoder
from container.live.legacy.routes import legacy_app, legacy_routes
from container.live.legacy.server import MINIMAL, LegacyServer
from container.live.legacy.single_frames import LatencyByAvatar, encode_transparent_frame, encode_video_frame
from container.live.session import LiveSession
from container.live.session_options import SessionOptions
from container.live.webrtc.resources import WebRtcServer
from container.speech.load import load_synthesizer
from inference.error_responses import Failure, failure_of
from inference.errors import AvatarNotFound, InvalidRequest, NotReady, Overloaded
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

logger = logging.getLogger("viseme.live")
MAX_SESSIONS = 256
MAX_SESSIONS_PER_CLIENT = 16  # unless a setting says otherwise
FRAME_INDEX = re.compile("[0-9]{1,9}")  # of a path: more digits than a number of frames has are no index
SAGEMAKER_PATH = "/invocations-bidirectional-stream"
MAX_STREAM_S = 30 * 60.0  # SageMaker's limit on the length of a stream
DRAIN_POLL_S = 0.1  # between checks for silence in each session while the server drains


def make_counting_clock(make_clock: Callable[[], FrameClock], counts: FrameCounts) -> FrameClock:
    """Return a new clock whose frames are added to the counts."""
    clock = make_clock()
    clock.counts = counts
    return clock


class AvatarServer:
    """Serves the avatars of this server to all WebSocket clients."""

    def __init__(
        self,
        settings: Settings,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        max_stream_s: float = MAX_STREAM_S,
        make_clock: Callable[[], FrameClock] = FrameClock,
    ) -> None:
        """Create a server without any loaded avatar; see `running`.

        stall_timeout_s: a client that reads nothing for this long is disconnected.
        max_stream_s: the limit of SageMaker's streams. make_clock: creates the clock of each session.
        """
        self.settings = settings
        self.avatars = AvatarCache(settings)
        self.speech = load_synthesizer(settings)
        self.latencies = LatencyByAvatar()
        self.legacy = LegacyServer(self.avatars, self.latencies, stall_timeout_s)
        self.is_draining = False
        self.frame_counts = FrameCounts()
        self._stall_timeout_s, self._max_stream_s = stall_timeout_s, max_stream_s
        self._make_clock = partial(make_counting_clock, make_clock, self.frame_counts)
        self.connections: dict[SessionConnection, LiveSession] = {}
        self._admitted = ClientCounter()  # connections that are sessions, or soon will be
        self._backgrounds = BackgroundCache()
        self.pacer = Pacer()  # shared by all HTTP ports
        self._encoders: WeakKeyDictionary[AvatarPackage, FrameEncoder] = WeakKeyDictionary()
        self.webrtc = WebRtcServer(
            settings,
            self.avatars,
            self.check_access,
            self.reserve,
            self.client_of,
            self.encoder_of,
            self._make_clock,
            find_synthesizer=lambda: self.speech,
        )

    def routes(self, find_origin: Callable[[], Awaitable[str | None]] = no_origin) -> list[BaseRoute]:
        """Return the routes of the main port. find_origin: see `page_routes`.

        On SageMaker that is the stream alone unless VISEME_REALTIME is set: only the platform can reach the container.
        """
        stream = WebSocketRoute(SAGEMAKER_PATH, self.serve_sagemaker_stream)
        if self.settings.on_sagemaker and not self.settings.realtime:
            return [stream]
        legacy = legacy_routes(self.legacy, MINIMAL, self.admit_legacy, self.client_of)
        return [stream, *page_routes(find_origin=find_origin), *self.session_routes(), *legacy]

    def session_routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/avatars", self.list_avatars),
            Route("/v1/avatars/{name}/background/{index}", self.get_background),
            WebSocketRoute("/v1/avatars/{name}/session", self.serve_session),
            *self.webrtc.routes(),
        ]

    def legacy_app(self, index: int) -> Starlette:
        """Return the application of one legacy port. index: of the port in the setting `legacy_ports`."""
        page = [*page_routes(LEGACY_VIEWS), *self.session_routes()]
        app = legacy_app(self.legacy, index, self.admit_legacy, self.client_of, lambda: self.is_draining, page)
        app.add_middleware(AccessMiddleware, rules=AccessRules.of(self.settings))
        app.add_middleware(PacingMiddleware, pacer=self.pacer, n_proxies=self.settings.trusted_proxies)
        return app

    @property
    def n_sessions(self) -> int:
        return len(self.connections) + self.webrtc.n_sessions

    @property
    def n_speaking(self) -> int:
        """Number of sessions with audio that is not spoken yet."""
        return sum(not session.is_silent for session in self.connections.values()) + self.webrtc.n_speaking

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks inside of the block. With VISEME_REALTIME, load all avatars first."""
        if self.settings.realtime:
            await self.avatars.load_all()
        tasks = [asyncio.create_task(one) for one in (self.avatars.watch_folder(), self.legacy.broadcast())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.webrtc.close()
            await self.avatars.close()

    def drain(self) -> None:
        """Reject new sessions, and end each running one as soon as it is silent."""
        self.is_draining = True
        self.webrtc.drain()

    def encoder_of(self, package: AvatarPackage) -> FrameEncoder:
        return self._encoders.setdefault(package, FrameEncoder(package))

    async def list_avatars(self, request: Request) -> Response:
        """Return the avatars as JSON."""
        try:
            self.check_access(request)
            return JSONResponse([asdict(info) for info in await self.avatars.list_packages()])
        except Exception as err:  # noqa: BLE001 - the edge
            return http_error(err)

    async def get_background(self, request: Request) -> Response:
        """Return a frame of the source video as JPEG, or with alpha=1 as WebP with alpha: the background of patches."""
        if FRAME_INDEX.fullmatch(request.path_params["index"]) is None:
            raise HTTPException(404)
        try:
            self.check_access(request)
            async with self.avatars.acquire(request.path_params["name"]) as package:
                index = int(request.path_params["index"])
                with_alpha = parse_alpha(request.query_params)
                encoded = await self.encode_background(package, index, self.client_of(request), with_alpha=with_alpha)
        except Exception as err:  # noqa: BLE001 - the edge
            return http_error(err)
        # Protected by a token, it must not be stored in a shared cache. An avatar may be replaced under the same name,
        # so caches must revalidate.
        cache_control = f"{'public' if self.settings.token is None else 'private'}, no-cache"
        headers = {"cache-control": cache_control, "etag": encoded.etag}
        if encoded.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(encoded.image, media_type=encoded.media_type, headers=headers)

    async def encode_background(
        self, package: AvatarPackage, index: int, client: str, *, with_alpha: bool
    ) -> EncodedBackground:
        """Return a background, which is encoded when it is the client's turn, unless it is cached.

        Raises: InvalidRequest if there is no such frame, or with alpha no matte; Overloaded if too many requests of the
        client wait.
        """
        encoded = self._backgrounds.get(package, index, with_alpha=with_alpha)
        if encoded is None:
            if with_alpha:
                webp = await self.avatars.run_single_frame(client, encode_transparent_frame, package, index)
                encoded = EncodedBackground.of(webp, "image/webp")
            else:
                jpeg = await self.avatars.run_single_frame(client, encode_video_frame, package, index, "full_body")
                encoded = EncodedBackground.of(jpeg)
            self._backgrounds.add(package, index, encoded, with_alpha=with_alpha)
        return encoded

    def client_of(self, connection: HTTPConnection) -> str:
        return client_of(connection, self.settings.trusted_proxies)

    def max_sessions_of(self, client: str) -> int | None:
        """Return how many sessions a client may open, or None for any number.

        Unless it is set, there is no limit on SageMaker, whose platform opens all of them, and for this machine, on
        which a reverse proxy may run.
        """
        if self.settings.max_sessions_per_client is not None:
            return self.settings.max_sessions_per_client
        return None if self.settings.on_sagemaker or is_loopback(client) else MAX_SESSIONS_PER_CLIENT

    def check_access(self, connection: HTTPConnection) -> None:
        """Check that a client may connect. Raises: NotReady if the server drains, AccessDenied.

        `AccessMiddleware` has checked its Host and Origin.
        """
        if self.is_draining:
            raise NotReady("the server is going down; try another one")
        check_token(connection.headers, self.settings.token)

    def check_capacity(self) -> None:
        """Check that another session fits. Raises: Overloaded."""
        if self._admitted.total >= MAX_SESSIONS:
            raise Overloaded(f"{self._admitted.total} sessions are open, which is the limit; try again later")

    @contextmanager
    def reserve(self, connection: HTTPConnection) -> Iterator[None]:
        """Count a session of a client inside of the block. Raises: Overloaded."""
        self.check_capacity()
        client = self.client_of(connection)
        with self._admitted.opened(client, self.max_sessions_of(client), "sessions"):
            yield

    async def serve_session(self, socket: WebSocket) -> None:
        """Serve a session with the avatar in the path."""
        name = socket.path_params["name"]
        async with self.admit(socket, name, dict(socket.query_params)) as options:
            if options is not None:
                await self.serve_connection(socket, name, options)

    async def serve_sagemaker_stream(self, socket: WebSocket) -> None:
        """Serve a session over SageMaker's bidirectional stream.

        The avatar is in the query, and the session's length is limited.
        """
        query = dict(socket.query_params)
        name = query.pop("avatar", None)
        if name is None:
            try:
                self.check_access(socket)  # first: listing the avatars may create the starter
            except Exception as err:  # noqa: BLE001 - the edge
                await deny_handshake(socket, err)
                return
            name = await self.default_avatar()
        async with self.admit(socket, name, query, in_band=True) as options:
            if options is not None:
                await self.serve_connection(socket, name, options, max_duration_s=self._max_stream_s)

    async def default_avatar(self) -> str:
        """Return the name of the avatar for requests that name none: the starter, or else the first."""
        names = [info.name for info in await self.avatars.list_packages()]
        return "starter" if "starter" in names or not names else names[0]

    async def admit_legacy(self, socket: WebSocket) -> bool:
        """Accept the connection of an older client, or reject its handshake; return whether it was accepted."""
        try:
            self.check_access(socket)
        except Exception as err:  # noqa: BLE001 - the edge
            await deny_handshake(socket, err)
            return False
        await socket.accept(choose_subprotocol(socket))
        return True

    @asynccontextmanager
    async def admit(
        self, socket: WebSocket, name: str, query: Mapping[str, str], *, in_band: bool = False
    ) -> AsyncIterator[SessionOptions | None]:
        """Accept the connection and yield the session's options, or reject it and yield None.

        in_band: report invalid requests in a message, as SageMaker requires. Without access, the handshake fails.
        """
        stack = contextlib.ExitStack()
        try:
            self.check_access(socket)
            stack.enter_context(self.reserve(socket))
        except Exception as err:  # noqa: BLE001 - the edge
            await deny_handshake(socket, err)
            yield None
            return
        with stack:
            yield await self.accept_session(socket, name, query, in_band=in_band)

    async def accept_session(
        self, socket: WebSocket, name: str, query: Mapping[str, str], *, in_band: bool
    ) -> SessionOptions | None:
        """Accept the connection and return the session's options; reject an invalid request and return None."""
        try:
            options = SessionOptions.parse(query)
            await self.avatars.check_exists(name)
        except (AvatarNotFound, InvalidRequest) as err:
            if not in_band:
                await deny_handshake(socket, err)
            else:
                await socket.accept(choose_subprotocol(socket))
                await close_stream_with_error(socket, failure_of(err))
            return None
        await socket.accept(choose_subprotocol(socket))
        return options

    async def serve_connection(
        self, socket: WebSocket, name: str, options: SessionOptions, max_duration_s: float | None = None
    ) -> None:
        """Serve one session until it ends. max_duration_s: of SageMaker's streams; None for no limit."""
        started = time.monotonic()
        is_sagemaker = max_duration_s is not None
        try:
            async with self.avatars.acquire(name) as package:
                encoder = self.encoder_of(package)
                session = LiveSession(
                    package, encoder, options, self.avatars.run_in_thread, self._make_clock(), self.speech
                )
                closed = await self.run_connection(socket, session, max_duration_s)
        except WebSocketDisconnect:
            closed = CloseReason(None)
        except Exception as err:  # noqa: BLE001 - the edge: unexpected errors are logged
            closed = await close_with_error(socket, err, is_sagemaker=is_sagemaker)
        took_s = round(time.monotonic() - started, 1)
        logger.info("session", extra={"avatar": name, "took_s": took_s, "code": closed.code})

    async def run_connection(
        self, socket: WebSocket, session: LiveSession, max_duration_s: float | None
    ) -> CloseReason:
        connection = SessionConnection(socket, session, self._stall_timeout_s)
        self.connections[connection] = session
        limits = asyncio.create_task(self.enforce_limits(connection, session, max_duration_s))
        try:
            closed = await connection.run()
            if closed.code is not None:
                await connection.flush_remaining()
                if max_duration_s is not None and closed.code != NORMAL:
                    await socket.send_text(model_stream_error("session_ended", closed.reason))
                await socket.close(closed.code, closed.reason)
        finally:
            limits.cancel()
            del self.connections[connection]
            session.close()
        return closed

    async def enforce_limits(
        self, connection: SessionConnection, session: LiveSession, max_duration_s: float | None
    ) -> None:
        """End the session when its time is over, or when the server drains and the session is silent."""
        deadline = time.monotonic() + max_duration_s if max_duration_s is not None else float("inf")
        while time.monotonic() < deadline:
            if self.is_draining and session.is_silent:
                connection.request_close(CloseReason(SERVICE_RESTART, "the server is going down"))
                return
            poll_s = DRAIN_POLL_S if self.is_draining else 1.0
            await asyncio.sleep(min(poll_s, max(deadline - time.monotonic(), 0.0)))
        connection.request_close(CloseReason(GOING_AWAY, f"the stream has reached its limit of {max_duration_s:g} s"))


def parse_alpha(query: Mapping[str, str]) -> bool:
    """Return whether a query has alpha=1. Raises: InvalidRequest for other values than 0 and 1."""
    value = query.get("alpha", "0")
    if value not in ("0", "1"):
        raise InvalidRequest(f"alpha={value[:40]!r}: expected 0 or 1")
    return value == "1"


async def deny_handshake(socket: WebSocket, err: Exception) -> None:
    """Reject a WebSocket handshake with the status and body that an HTTP request would get."""
    await socket.send_denial_response(http_error(err))


async def close_with_error(socket: WebSocket, err: Exception, *, is_sagemaker: bool) -> CloseReason:
    """Report an error to the client and close the connection."""
    failure = failure_of(err)
    if failure.code == "internal_error":
        logger.error("unexpected error", exc_info=err)
    with contextlib.suppress(WebSocketDisconnect):
        if is_sagemaker:
            await close_stream_with_error(socket, failure)
        else:
            event = {"type": "error", "generation": 0, "code": failure.code, "message": failure.message}
            await socket.send_text(json.dumps(event))
            await socket.close(INTERNAL_ERROR, failure.code)
    return CloseReason(INTERNAL_ERROR, failure.code)


async def close_stream_with_error(socket: WebSocket, failure: Failure) -> None:
    """Report an error in the form of SageMaker's bidirectional streams, and close the connection."""
    await socket.send_text(model_stream_error(failure.code, failure.message))
    await socket.close(INTERNAL_ERROR, failure.code)


def model_stream_error(code: str, message: str) -> str:
    """Return the JSON of an error message of SageMaker's bidirectional streams."""
    return json.dumps({"ModelStreamError": {"ErrorCode": code, "Message": message}})
