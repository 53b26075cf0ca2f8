"""The HTTP side of the container: SageMaker's routes, and OpenAI's for transcription.

Holds no model: a request is admitted, its body put on disk, and a worker process does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from container.http.auth import check_token
from container.intake import (
    ASYNC_HEADER,
    ClosingResponse,
    RequestLimits,
    UnreadBodyResponse,
    body_on_disk,
    limits_of,
)
from container.metrics import Metrics
from container.pool import Pool
from container.statuses import Failure, failure_of
from container.stream import Live
from container.worker_main import Job
from inference.errors import Canceled, DeadlineExceeded, NotReady
from inference.requests import ANSWERS, NDJSON, OPTIONS_HEADER, choose_answer
from inference.settings import Settings

LOG = logging.getLogger("viseme.http")
STREAM_GRACE_S = 1.0  # for the last line of a stream whose deadline has passed
FILM_S = 900.0  # for a caller to take a film: a gigabyte at 10 Mbit/s
CHUNK_BYTES = 1 << 18
# What the worker needs to see of a request's headers.
PASSED_ON = ("content-type", "accept", OPTIONS_HEADER)


class Server:
    """The routes over one pool of workers."""

    def __init__(self, settings: Settings, pool: Pool | None = None) -> None:
        self.settings = settings
        model_dir = str(settings.model_dir) if settings.model_dir else None
        self.pool = pool or Pool(settings.workers, settings.queue_size, model_dir)
        self.live = Live(settings)
        self.metrics = Metrics()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/ping", self.ping),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
            Route("/invocations", self.invocations, methods=["POST"]),
            Route("/v1/audio/transcriptions", self.transcriptions, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
            *self.live.routes(),
        ]

    @property
    def is_draining(self) -> bool:
        return self.live.is_draining

    @property
    def n_held(self) -> int:
        """Requests that wait or run, and avatars that speak."""
        return self.pool.n_held + self.live.n_speaking

    def drain(self) -> None:
        """Take nothing new; /ping says so."""
        self.live.drain()

    @property
    def is_ready(self) -> bool:
        return self.pool.is_ready and not self.is_draining

    async def ping(self, _request: Request) -> Response:
        """Empty: 200 when the models are loaded and a worker lives."""
        return Response(status_code=200 if self.is_ready else 503)

    async def health(self, _request: Request) -> Response:
        """What was measured when the worker started."""
        status = "ok" if self.is_ready else "draining" if self.is_draining else "not ready"
        return JSONResponse({"status": status, "inference_ready": False} | self.pool.health | {"status": status})

    async def show_metrics(self, _request: Request) -> Response:
        self.metrics.held.set(self.pool.n_held)
        self.metrics.restarts.set(self.pool.n_restarts)
        self.metrics.ready.set(self.is_ready)
        self.metrics.sessions.set(self.live.n_sessions)
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def invocations(self, request: Request) -> Response:
        return await self.serve("invocations", request)

    async def transcriptions(self, request: Request) -> Response:
        return await self.serve("transcriptions", request)

    async def generate(self, request: Request) -> Response:
        return await self.serve("generate", request)

    async def serve(self, route: str, request: Request) -> Response:
        """Answer one request; every error becomes its status here, and nowhere else."""
        request_id = request_id_of(request)
        common = {"x-request-id": request_id} | echoed(request)
        started = time.monotonic()
        stack = contextlib.AsyncExitStack()
        job: Job | None = None
        try:
            self.check_open(request)
            await stack.enter_async_context(self.pool.admit())
            limits = limits_of(request.headers, self.settings)
            job = await self.take_in(route, request, request_id, limits, stack)
            messages = self.pool.run(job, job.ends)
            stack.push_async_callback(messages.aclose)
            first = await unless_gone(request, anext(messages))
        except Exception as err:  # noqa: BLE001 - the edge: what was not foreseen is logged by `refuse`
            await stack.aclose()
            return self.refuse(route, err, common, started, Response if job else response_unread(err))
        if first[0] == "part":
            lines = self.stream(route, first, messages, common, started)
            return OwningStream(lines, stack, job.ends + STREAM_GRACE_S, media_type=NDJSON, headers=common)
        if first[0] == "done" and isinstance(first[1], Path):
            await messages.aclose()  # the worker is free while the film is sent
            return self.send_film(route, first[1], first[2], stack, common, started)
        await stack.aclose()
        return self.conclude(route, first, common, started)

    async def take_in(
        self, route: str, request: Request, request_id: str, limits: RequestLimits, stack: contextlib.AsyncExitStack
    ) -> Job:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        if route != "transcriptions":
            choose_answer(headers.get("accept"), ANSWERS)  # before the body is read: it may be in vain
        body = await stack.enter_async_context(body_on_disk(request, limits))
        now = time.monotonic()
        return Job(route, headers, body, request_id, now + limits.deadline_s, now + limits.sync_s)

    def check_open(self, request: Request) -> None:
        """Raises: NotReady, AccessDenied."""
        if self.is_draining:
            raise NotReady("the server is going down; try another one")
        if not self.pool.is_ready:
            raise NotReady("the models are not loaded")
        check_token(request.headers, self.settings.token)

    def conclude(self, route: str, last: tuple[Any, ...], common: dict[str, str], started: float) -> Response:
        if last[0] == "failed":
            return self.answer_failure(route, last[1], common, started)
        _, body, content_type = last
        self.account(route, 200, started, common)
        return Response(body, headers=common | {"content-type": content_type})

    def send_film(
        self,
        route: str,
        film: Path,
        content_type: str,
        stack: contextlib.AsyncExitStack,
        common: dict[str, str],
        started: float,
    ) -> Response:
        """From disk, where it stays until it is sent."""
        size = film.stat().st_size

        async def chunks() -> AsyncIterator[bytes]:
            status, left = 499, size  # the caller left, unless it all goes out
            try:
                with film.open("rb") as file:
                    # By size: whoever has it all may hang up before a last, empty read comes back.
                    while left and (chunk := await asyncio.to_thread(file.read, CHUNK_BYTES)):
                        yield chunk
                        left -= len(chunk)
                status = 200
            finally:
                self.account(route, status, started, common | ({"code": "canceled"} if status == 499 else {}))

        headers = common | {"content-length": str(size)}
        ends = time.monotonic() + FILM_S
        return OwningStream(chunks(), stack, ends, media_type=content_type, headers=headers)

    def refuse(
        self, route: str, err: Exception, common: dict[str, str], started: float, response: type[Response]
    ) -> Response:
        failure = failure_of(err)
        if failure.code == "internal_error":
            LOG.error("unforeseen", exc_info=err, extra={"request_id": common["x-request-id"]})
        return self.answer_failure(route, failure, common, started, response)

    def answer_failure(
        self,
        route: str,
        failure: Failure,
        common: dict[str, str],
        started: float,
        response: type[Response] = Response,
    ) -> Response:
        self.account(route, failure.status, started, common | {"code": failure.code})
        return response(failure.body(), failure.status, headers=common | failure.headers())

    def account(self, route: str, status: int, started: float, about: dict[str, str]) -> None:
        took_s = time.monotonic() - started
        self.metrics.count(route, str(status), took_s)
        LOG.info(
            "request",
            extra={
                "route": route,
                "status": status,
                "took_ms": round(took_s * 1000),
                "request_id": about["x-request-id"],
            }
            | ({"code": about["code"]} if "code" in about else {}),
        )

    async def stream(
        self,
        route: str,
        first: tuple[Any, ...],
        messages: AsyncIterator[tuple[Any, ...]],
        common: dict[str, str],
        started: float,
    ) -> AsyncIterator[bytes]:
        """Lines while the video is read. A failure in the middle is the last line, and the reply breaks off."""
        message = first
        try:
            while message[0] == "part":
                yield message[1]
                message = await anext(messages)
        except Exception as err:  # noqa: BLE001 - the edge, as in `serve`
            message = ("failed", failure_of(err))
        except BaseException:  # the caller left: nobody hears of it but the log
            self.account(route, 499, started, common | {"code": "canceled"})
            raise
        if message[0] == "failed":
            failure = message[1]
            yield failure.body() + b"\n"
            self.account(route, failure.status, started, common | {"code": failure.code})
            raise BrokenOff(failure.code)
        yield message[1]
        self.account(route, 200, started, common)


def response_unread(err: Exception) -> type[Response]:
    """How a refusal goes out before the whole body came in."""
    if isinstance(err, DeadlineExceeded):
        return ClosingResponse
    return Response if isinstance(err, Canceled) else UnreadBodyResponse


class OwningStream(StreamingResponse):
    """A streamed answer that gives back what its request holds.

    Even if the caller left before its first line, and also where it stays but does not read.
    ends: when it is broken off, on the clock of `time.monotonic`, which is the event loop's.
    """

    def __init__(self, lines: AsyncIterator[bytes], held: contextlib.AsyncExitStack, ends: float, **about: Any) -> None:
        super().__init__(lines, **about)
        self._held, self._ends = held, ends
        self._request_id = self.headers["x-request-id"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._held, asyncio.timeout_at(self._ends):
                await super().__call__(scope, receive, send)
        except TimeoutError:  # not let through: any caller could fill the log with tracebacks
            LOG.warning("a stream was broken off: it was not read in time", extra={"request_id": self._request_id})


class BrokenOff(Exception):
    """Ends a reply whose status was sent before its failure, so that no client takes it for whole."""


async def unless_gone(request: Request, awaited: Awaitable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The first message, unless the caller goes away before it comes. Raises: Canceled."""
    work = asyncio.ensure_future(awaited)
    gone = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise Canceled("the caller went away")
        return work.result()
    finally:
        gone.cancel()


async def disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.25)


def request_id_of(request: Request) -> str:
    """The caller's, where it is plain and short; else one of ours."""
    given = request.headers.get("x-request-id", "") or request.headers.get(ASYNC_HEADER, "")
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else uuid.uuid4().hex


def echoed(request: Request) -> dict[str, str]:
    """SageMaker gives a caller only those custom attributes that the container sends back."""
    given = request.headers.get(OPTIONS_HEADER)
    return {"X-Amzn-SageMaker-Custom-Attributes": given} if given else {}


def make_app(server: Server, extra_routes: Callable[[Server], list[Route]] | None = None) -> Starlette:
    """The ASGI application; its lifespan starts and stops the workers."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await server.pool.start()
        try:
            async with server.live.running():
                yield
        finally:
            await server.pool.stop()

    routes = [*server.routes(), *(extra_routes(server) if extra_routes else [])]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: not_found, 405: not_found})


async def not_found(request: Request, err: Exception) -> Response:
    status = getattr(err, "status_code", 404)
    failure = Failure(status, "invalid_request", f"{request.method} {request.url.path}: no such route")
    return Response(failure.body(), status, headers=failure.headers())
