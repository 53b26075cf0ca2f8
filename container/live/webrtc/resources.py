"""The HTTP resources of WebRTC sessions (WHEP): POST opens one, PATCH adds candidates, DELETE ends it.

Sources: draft-ietf-wish-whep; RFC 9725 (WHIP), whose PATCH and headers WHEP shares; RFC 8840 (trickle ICE fragments).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from container.http.clients import is_loopback
from container.http.request_body import read_small_body
from container.http.responses import early_response_class, http_error
from container.live.frame_clock import FrameClock
from container.live.session_options import SessionOptions
from container.live.webrtc.ice_servers import parse_servers
from inference.errors import (
    InvalidRequest,
    PreconditionFailed,
    SessionNotFound,
    UnsupportedContentType,
    WebRtcUnavailable,
)
from inference.settings import Settings

if TYPE_CHECKING:
    from container.live.avatar_cache import AvatarCache
    from container.live.frame_encoder import FrameEncoder
    from container.live.webrtc.offer import Offer
    from container.live.webrtc.peer import WebRtcPeer
    from container.speech.synthesizer import Synthesizer
    from inference.avatar import AvatarPackage

logger = logging.getLogger("viseme.live")
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
MAX_BODY_BYTES = {SDP: 64 << 10, FRAGMENT: 16 << 10}  # Chromium's offer has 7 kB
SETUP_TIMEOUT_S = 30.0  # from the answer until the client is connected
NEGOTIATION_TIMEOUT_S = 15.0  # for the answer, with 5 s for the STUN and TURN servers
OPTIONS = ("sample_rate", "visemes")  # of the query
POLL_S = 0.5  # between checks for silence in each session while the server drains


@dataclass
class OpenPeer:
    """A connection that a client may change. n_candidates: of the client, so far. task: runs it."""

    avatar: str
    peer: WebRtcPeer
    offer: Offer
    etag: str
    is_local: bool
    n_candidates: int
    task: asyncio.Task[None] | None = None


class WebRtcServer:
    """The WebRTC sessions of a server."""

    def __init__(
        self,
        settings: Settings,
        avatars: AvatarCache,
        check_access: Callable[[HTTPConnection], None],
        admit: Callable[[HTTPConnection], AbstractContextManager[None]],
        client_of: Callable[[HTTPConnection], str],
        encoder_of: Callable[[AvatarPackage], FrameEncoder],
        make_clock: Callable[[], FrameClock] = FrameClock,
        setup_timeout_s: float = SETUP_TIMEOUT_S,
        find_synthesizer: Callable[[], Synthesizer | None] = lambda: None,
    ) -> None:
        """Create a server without sessions.

        check_access: raises if a client may not connect. admit: counts a session inside of the block, as those of
        WebSockets are. client_of: returns who calls. find_synthesizer: returns what speaks clients' texts, if any.
        """
        self._avatars, self._check_access, self._admit, self._client_of = avatars, check_access, admit, client_of
        self._encoder_of, self._make_clock, self._setup_timeout_s = encoder_of, make_clock, setup_timeout_s
        self._find_synthesizer = find_synthesizer
        self._servers = parse_servers(settings.ice_servers)
        self.peers: dict[str, OpenPeer] = {}
        self._is_draining = False

    def routes(self) -> list[BaseRoute]:
        path = "/v1/avatars/{name}/whep"
        return [
            Route(path, self.open_session, methods=["POST"]),
            Route(f"{path}/{{session}}", self.add_candidates, methods=["PATCH"]),
            Route(f"{path}/{{session}}", self.end_session, methods=["DELETE"]),
        ]

    @property
    def n_sessions(self) -> int:
        return len(self.peers)

    @property
    def n_speaking(self) -> int:
        """Number of sessions with audio that is not spoken yet."""
        return sum(not one.peer.session.is_silent for one in self.peers.values())

    async def open_session(self, request: Request) -> Response:
        """Answer an offer and open its session."""
        body: bytes | None = None
        try:
            self._check_access(request)
            await self._avatars.run_in_background(import_peer)
            with contextlib.ExitStack() as admission:
                admission.enter_context(self._admit(request))
                body = await read_sdp(request, SDP)
                async with contextlib.AsyncExitStack() as stack:
                    opened, answer = await self._open(request, body, stack)
                    stack.push(admission.pop_all())
                    return self._start(opened, answer, stack.pop_all())
        except Exception as err:  # noqa: BLE001 - the edge
            return http_error(err, early_response_class(err) if body is None else Response)

    async def _open(self, request: Request, body: bytes, stack: contextlib.AsyncExitStack) -> tuple[OpenPeer, str]:
        """Return a connection and its answer. stack: keeps the avatar. Raises: VisemeError."""
        from container.live.webrtc.media_session import MediaSession
        from container.live.webrtc.offer import read_offer
        from container.live.webrtc.peer import WebRtcPeer

        options, name = parse_options(request.query_params), request.path_params["name"]
        is_local = is_loopback(self._client_of(request))
        offer = read_offer(body, is_local=is_local)
        package = await stack.enter_async_context(self._avatars.acquire(name))
        clock = self._make_clock()
        session = MediaSession(
            package,
            self._encoder_of(package),
            options,
            self._avatars.run_in_thread,
            clock,
            self._find_synthesizer(),
        )
        peer = WebRtcPeer(session, clock, self._servers)
        try:
            async with asyncio.timeout(NEGOTIATION_TIMEOUT_S):
                answer = await peer.negotiate(offer, is_local=is_local)
        except BaseException:
            await peer.close()
            raise
        etag = f'"{secrets.token_hex(8)}"'
        return OpenPeer(name, peer, offer, etag, is_local, offer.n_candidates), answer

    def _start(self, opened: OpenPeer, answer: str, stack: contextlib.AsyncExitStack) -> Response:
        session = secrets.token_urlsafe(16)
        self.peers[session] = opened
        opened.task = asyncio.create_task(self._run(session, opened, stack))
        response = Response(answer, 201, media_type=SDP)
        response.headers["location"] = f"/v1/avatars/{quote(opened.avatar, safe='')}/whep/{session}"
        response.headers["etag"] = opened.etag
        response.headers["accept-patch"] = FRAGMENT
        for server in self._servers:
            response.headers.append("link", server.link)
        return response

    async def _run(self, session: str, opened: OpenPeer, stack: contextlib.AsyncExitStack) -> None:
        """Run a session until it ends. stack: releases its avatar and its place."""
        started, reason = time.monotonic(), "canceled"
        async with stack:
            limits = asyncio.create_task(self._enforce_limits(opened.peer))
            try:
                reason = await opened.peer.run(self._setup_timeout_s)
            except Exception:
                reason = "internal_error"
                logger.exception("unexpected error")
            finally:
                limits.cancel()
                del self.peers[session]
        took_s = round(time.monotonic() - started, 1)
        logger.info(
            "session", extra={"avatar": opened.avatar, "took_s": took_s, "reason": reason, "protocol": "webrtc"}
        )

    async def _enforce_limits(self, peer: WebRtcPeer) -> None:
        """End the session when the server drains and the session is silent."""
        while not (self._is_draining and peer.session.is_silent):
            await asyncio.sleep(POLL_S)
        peer.request_close("the server is going down")

    async def add_candidates(self, request: Request) -> Response:
        """Add candidates that the client found after its offer."""
        from container.live.webrtc.offer import read_fragment

        body: bytes | None = None
        try:
            opened = self._find(request)
            check_etag(request.headers.get("if-match"), opened.etag)
            body = await read_sdp(request, FRAGMENT)
            candidates, n_found = read_fragment(body, opened.offer, opened.n_candidates, is_local=opened.is_local)
            opened.n_candidates += n_found
            await opened.peer.add_candidates(candidates)
        except Exception as err:  # noqa: BLE001 - the edge
            return http_error(err, early_response_class(err) if body is None else Response)
        return Response(status_code=204, headers={"etag": opened.etag})

    async def end_session(self, request: Request) -> Response:
        """End a session; it has ended when the response is sent."""
        try:
            opened = self._find(request)
        except Exception as err:  # noqa: BLE001 - the edge
            return http_error(err)
        opened.peer.request_close("the client ended it")
        if opened.task is not None:
            await asyncio.wait([opened.task])
        return Response(status_code=200)

    def _find(self, request: Request) -> OpenPeer:
        """Return the session that a request names. Raises: AccessDenied, NotReady, SessionNotFound."""
        self._check_access(request)
        opened = self.peers.get(request.path_params["session"])
        if opened is None or opened.avatar != request.path_params["name"]:
            raise SessionNotFound("there is no such session; it may have ended")
        return opened

    def drain(self) -> None:
        """End each session as soon as it is silent."""
        self._is_draining = True

    async def close(self) -> None:
        """End all sessions."""
        tasks = [one.task for one in self.peers.values() if one.task is not None]
        for one in self.peers.values():
            one.peer.request_close("the server is going down")
        if tasks:
            await asyncio.wait(tasks)


def import_peer() -> None:
    """Import aiortc, which takes half a second. Raises: WebRtcUnavailable if it is not installed."""
    try:
        import container.live.webrtc.peer  # noqa: F401
    except ModuleNotFoundError as err:
        raise WebRtcUnavailable("WebRTC needs the extra webrtc: pip install 'viseme[webrtc]'") from err


def check_etag(given: str | None, etag: str) -> None:
    """Check If-Match, which clients may leave out. Raises: PreconditionFailed if it is not the session's ETag."""
    if given is not None and given != etag:
        raise PreconditionFailed(f"If-Match {given[:40]!r}: expected {etag}; ICE restarts are not supported")


def parse_options(query: Mapping[str, str]) -> SessionOptions:
    """Return the options of a session. Its frames are whole. Raises: InvalidRequest."""
    for name in query:
        if name not in OPTIONS:
            raise InvalidRequest(
                f"{name[:40]!r}: expected {' or '.join(OPTIONS)}; the video of a WebRTC session is whole"
            )
    return SessionOptions.parse(dict(query) | {"frames": "whole"})


async def read_sdp(request: Request, media_type: str) -> bytes:
    """Return the body of a request. Raises: UnsupportedContentType, and the errors of `read_small_body`."""
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != media_type:
        raise UnsupportedContentType(f"content-type {found[:80]!r}: expected {media_type}")
    return await read_small_body(request, MAX_BODY_BYTES[media_type])
