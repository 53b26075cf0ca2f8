"""Live avatars over WebSocket: sessions, SageMaker's bidirectional stream, and what a page needs to show them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from container.http.auth import check_origin, check_token, chosen_protocol
from container.http.static_page import page_routes
from container.live.avatar_cache import Avatars
from container.live.connection import GOING_AWAY, INTERNAL_ERROR, NORMAL, RESTARTING, STALL_S, Ending, Talk
from container.live.frame_clock import Pacer
from container.live.frame_encoder import Pictures
from container.live.legacy.routes import legacy_routes
from container.live.legacy.server import MINIMAL, Dialect, OldClients
from container.live.legacy.single_frames import Tallies, make_video_frame
from container.live.session import LiveSession
from container.live.session_options import SessionOptions
from container.statuses import Failure, failure_of
from inference.errors import AvatarNotFound, InvalidRequest, NotReady, Overloaded
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

LOG = logging.getLogger("viseme.live")
MAX_SESSIONS = 256
SAGEMAKER_PATH = "/invocations-bidirectional-stream"
SAGEMAKER_S = 30 * 60.0  # its longest stream
LEAVE_S = 0.1  # between looks at whether a session is silent, once the server goes down


class Live:
    """The avatars of this server and all who speak with them."""

    def __init__(
        self,
        settings: Settings,
        stall_s: float = STALL_S,
        longest_s: float = SAGEMAKER_S,
        pacer: Callable[[], Pacer] = Pacer,
    ) -> None:
        """stall_s: after which a client that takes nothing is dropped. longest_s: of SageMaker's streams.

        pacer: makes the clock of each session.
        """
        self.settings = settings
        self.avatars = Avatars(settings)
        self.tallies = Tallies()
        self.old_clients = OldClients(self.avatars, self.tallies, stall_s)
        self.is_draining = False
        self._stall_s, self._longest_s, self._pacer = stall_s, longest_s, pacer
        self.talks: dict[Talk, LiveSession] = {}
        self._pictures: WeakKeyDictionary[AvatarPackage, Pictures] = WeakKeyDictionary()

    def routes(self) -> list[BaseRoute]:
        """On SageMaker the stream alone, unless the others were asked for: nothing but the platform reaches it."""
        stream = WebSocketRoute(SAGEMAKER_PATH, self.serve_stream)
        if self.settings.on_sagemaker and not self.settings.realtime:
            return [stream]
        return [stream, *self.page_routes(), *legacy_routes(self, MINIMAL)]

    def page_routes(self) -> list[BaseRoute]:
        """The page for people, and what it asks for."""
        return [*page_routes(), *self.session_routes()]

    def session_routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/avatars", self.list_avatars),
            Route("/v1/avatars/{name}/background/{index:int}", self.show_background),
            WebSocketRoute("/v1/avatars/{name}/session", self.serve_session),
        ]

    @property
    def n_sessions(self) -> int:
        return len(self.talks)

    @property
    def n_speaking(self) -> int:
        """Sessions with speech that is not spoken yet."""
        return sum(not live.is_silent for live in self.talks.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the server runs: load what was asked for, and drop what goes."""
        if self.settings.realtime:
            await self.avatars.load_all()
        tasks = [asyncio.create_task(one) for one in (self.avatars.keep_looking(), self.old_clients.broadcast())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.avatars.close()

    def drain(self) -> None:
        """Let nobody in any more; sessions end as they fall silent."""
        self.is_draining = True

    def pictures_of(self, package: AvatarPackage) -> Pictures:
        return self._pictures.setdefault(package, Pictures(package))

    async def list_avatars(self, request: Request) -> Response:
        try:
            self.check_open(request)
            return JSONResponse([asdict(one) for one in await self.avatars.known()])
        except Exception as err:  # noqa: BLE001 - the edge
            return refusal(err)

    async def show_background(self, request: Request) -> Response:
        """A frame as it was filmed: what lies under patches."""
        try:
            self.check_open(request)
            async with self.avatars.lease(request.path_params["name"]) as package:
                index = request.path_params["index"]
                jpeg = await self.avatars.run(make_video_frame, package, index, "full_body")
        except Exception as err:  # noqa: BLE001 - the edge
            return refusal(err)
        # Behind a token it is for nobody but the caller, whatever stands in between. An avatar may be replaced under
        # its name, so a copy is asked about before it is shown again.
        tag = f'"{hashlib.sha256(jpeg).hexdigest()}"'
        kept = f"{'public' if self.settings.token is None else 'private'}, no-cache"
        headers = {"cache-control": kept, "etag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    def check_open(self, connection: HTTPConnection) -> None:
        """Raises: NotReady, AccessDenied."""
        if self.is_draining:
            raise NotReady("the server is going down; try another one")
        check_token(connection.headers, self.settings.token)
        if not self.settings.on_sagemaker:  # there nothing but the platform can reach us
            check_origin(connection.headers, self.settings.token, self.settings.allowed_origins)

    def check_room(self) -> None:
        """Raises: Overloaded."""
        if self.n_sessions >= MAX_SESSIONS:
            raise Overloaded(f"{self.n_sessions} sessions are held already; try again later")

    async def serve_session(self, socket: WebSocket) -> None:
        """A session with the avatar that the path names."""
        name = socket.path_params["name"]
        async with self.admitted(socket, name, dict(socket.query_params)) as options:
            if options is not None:
                await self.talk(socket, name, options)

    async def serve_stream(self, socket: WebSocket) -> None:
        """The same, as SageMaker's platform passes it on: `avatar` in the query, and an end after 30 minutes."""
        query = dict(socket.query_params)
        name = query.pop("avatar", None)
        if name is None:
            try:
                self.check_open(socket)  # before anything is looked for, or made, for a stranger
            except Exception as err:  # noqa: BLE001 - the edge
                await deny(socket, err)
                return
            name = await self.choose_avatar()
        async with self.admitted(socket, name, query, in_band=True) as options:
            if options is not None:
                await self.talk(socket, name, options, longest_s=self._longest_s)

    async def choose_avatar(self) -> str:
        """The one to speak with where none is named: the starter, or else the first."""
        names = [one.name for one in await self.avatars.known()]
        return "starter" if "starter" in names or not names else names[0]

    async def serve_old_client(self, socket: WebSocket, dialect: Dialect) -> None:
        """Frames asked for by number."""
        try:
            self.check_open(socket)
        except Exception as err:  # noqa: BLE001 - the edge
            await deny(socket, err)
            return
        await socket.accept(chosen_protocol(socket))
        await self.old_clients.serve(socket, dialect)

    @asynccontextmanager
    async def admitted(
        self, socket: WebSocket, name: str, query: Mapping[str, str], *, in_band: bool = False
    ) -> AsyncIterator[SessionOptions | None]:
        """Accept the connection, or refuse it, and then give None.

        in_band: the refusal is a message, as SageMaker wants it, except where the caller may not come in at all.
        """
        try:
            self.check_open(socket)
            self.check_room()
        except Exception as err:  # noqa: BLE001 - the edge
            await deny(socket, err)
            yield None
            return
        try:
            options = SessionOptions.read(query)
            await self.avatars.check(name)
        except (AvatarNotFound, InvalidRequest) as err:
            if not in_band:
                await deny(socket, err)
            else:
                await socket.accept(chosen_protocol(socket))
                await tell_sagemaker(socket, failure_of(err))
            yield None
            return
        await socket.accept(chosen_protocol(socket))
        yield options

    async def talk(self, socket: WebSocket, name: str, options: SessionOptions, longest_s: float | None = None) -> None:
        """Serve one session to its end. longest_s: None for as long as the client stays."""
        started = time.monotonic()
        is_sagemaker = longest_s is not None
        try:
            async with self.avatars.lease(name) as package:
                pictures = self.pictures_of(package)
                live = LiveSession(package, pictures, options, self.avatars.run, self._pacer())
                ending = await self.run_talk(socket, live, longest_s)
        except WebSocketDisconnect:
            ending = Ending(None)
        except Exception as err:  # noqa: BLE001 - the edge: what was not foreseen is logged
            ending = await fail(socket, err, is_sagemaker=is_sagemaker)
        LOG.info("session", extra={"avatar": name, "took_s": round(time.monotonic() - started, 1), "code": ending.code})

    async def run_talk(self, socket: WebSocket, live: LiveSession, longest_s: float | None) -> Ending:
        talk = Talk(socket, live, self._stall_s)
        self.talks[talk] = live
        watch = asyncio.create_task(self.watch(talk, live, longest_s))
        try:
            ending = await talk.run()
            if ending.code is not None:
                await talk.say_goodbye()
                if longest_s is not None and ending.code != NORMAL:
                    await socket.send_text(model_stream_error("session_ended", ending.reason))
                await socket.close(ending.code, ending.reason)
        finally:
            watch.cancel()
            del self.talks[talk]
            live.close()
        return ending

    async def watch(self, talk: Talk, live: LiveSession, longest_s: float | None) -> None:
        """End the session where its time is over, or the server goes down and it is silent."""
        ends = time.monotonic() + longest_s if longest_s is not None else float("inf")
        while time.monotonic() < ends:
            if self.is_draining and live.is_silent:
                talk.end(Ending(RESTARTING, "the server is going down"))
                return
            await asyncio.sleep(min(LEAVE_S if self.is_draining else 1.0, max(ends - time.monotonic(), 0.0)))
        talk.end(Ending(GOING_AWAY, f"a stream lasts {longest_s:g} s at most"))


def refusal(err: Exception) -> Response:
    """An error as an answer over HTTP."""
    failure = failure_of(err)
    if failure.code == "internal_error":
        LOG.error("unforeseen", exc_info=err)
    return Response(failure.body(), failure.status, headers=failure.headers())


async def deny(socket: WebSocket, err: Exception) -> None:
    """Refuse the handshake, with the status and the body that HTTP callers get."""
    await socket.send_denial_response(refusal(err))


async def fail(socket: WebSocket, err: Exception, *, is_sagemaker: bool) -> Ending:
    """Tell the client why its session is over."""
    failure = failure_of(err)
    if failure.code == "internal_error":
        LOG.error("unforeseen", exc_info=err)
    with contextlib.suppress(WebSocketDisconnect):
        if is_sagemaker:
            await tell_sagemaker(socket, failure)
        else:
            about = {"type": "error", "generation": 0, "code": failure.code, "message": failure.message}
            await socket.send_text(json.dumps(about))
            await socket.close(INTERNAL_ERROR, failure.code)
    return Ending(INTERNAL_ERROR, failure.code)


async def tell_sagemaker(socket: WebSocket, failure: Failure) -> None:
    await socket.send_text(model_stream_error(failure.code, failure.message))
    await socket.close(INTERNAL_ERROR, failure.code)


def model_stream_error(code: str, message: str) -> str:
    return json.dumps({"ModelStreamError": {"ErrorCode": code, "Message": message}})
