"""The HTTP server of the container: SageMaker's routes, and OpenAI's for transcription.

It loads no model: it admits a request, writes its body to disk, and a worker process does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from container.http.access import PLATFORM_PATHS, AccessMiddleware, AccessRules
from container.http.answers import AnswerQuota
from container.http.auth import check_token
from container.http.clients import is_loopback
from container.http.event_stream import EventStreamResponse, accept_of_stream
from container.http.generation_errors import error_body, not_offered
from container.http.metrics import Metrics
from container.http.pacing import PacingMiddleware
from container.http.request_body import BODY_TIMEOUT_S, BodyQuota, RequestLimits, body_on_disk, limits_of
from container.http.request_log import RequestLog
from container.http.responses import (
    CleanupStreamingResponse,
    StreamAborted,
    as_model_error,
    early_response_class,
    request_id_of,
)
from container.http.static_page import OPENAPI_PATH, docs_routes
from container.jobs.api.routes import JobRoutes
from container.jobs.download_origin import DownloadOrigin
from container.jobs.generations.routes import GenerationRoutes
from container.jobs.service import JobService
from container.speech import requests as speech_requests
from container.speech.synthesizer import TIMEOUT_S as SPEECH_TIMEOUT_S
from container.speech.synthesizer import Synthesizer
from container.stream import AvatarServer
from container.worker.messages import AnswerMessage, Done, Failed, Part, WorkerRequest
from container.worker.placement import Machine, place_workers
from container.worker.pool import Pool
from container.worker.read_ahead import ReadAhead
from inference.error_responses import Failure, failure_of
from inference.errors import AccessDenied, Canceled, NotReady, StorageError
from inference.locked_folders import remove_orphans
from inference.requests import ANSWER_TYPES, NDJSON, OPTIONS_HEADER, WAV, AcceptHeader
from inference.settings import Settings
from inference.tracing import TRACEPARENT, current_traceparent, span

logger = logging.getLogger("viseme.http")
STREAM_GRACE_S = 1.0  # seconds for the last line of a stream after its deadline
FILE_SEND_TIMEOUT_S = 900.0  # seconds for a caller to receive a large answer: a gigabyte at 10 Mbit/s
CHUNK_BYTES = 1 << 18
SPEECH_LIMITS = RequestLimits(speech_requests.MAX_BODY_BYTES, BODY_TIMEOUT_S, SPEECH_TIMEOUT_S, SPEECH_TIMEOUT_S)
WORKER_HEADERS = ("content-type", OPTIONS_HEADER)  # request headers that the worker receives


@dataclass(frozen=True)
class RequestContext:
    """What every response and log line about one request repeats. headers: of every response."""

    route: str
    request_id: str
    headers: dict[str, str]
    started: float

    @classmethod
    def of(cls, route: str, request: Request) -> RequestContext:
        request_id = request_id_of(request)
        return cls(route, request_id, {"x-request-id": request_id} | echoed_headers(request), time.monotonic())


class Server:
    """The HTTP routes over one pool of workers."""

    def __init__(self, settings: Settings, pool: Pool | None = None, jobs: JobService | None = None) -> None:
        self.settings = settings
        model_dir = str(settings.model_dir) if settings.model_dir else None
        placements = place_workers(settings, Machine.inspect(settings))
        self.pool = pool or Pool(placements, settings.queue_size, model_dir)
        self.live = AvatarServer(settings)
        self.jobs = jobs or JobService(settings)
        self.download_origin = DownloadOrigin(settings)
        self.metrics = Metrics()
        self._bodies = BodyQuota(settings.max_uploads, settings.max_upload_bytes)
        self._answers = AnswerQuota(settings.max_answers)
        self._log = RequestLog(self.metrics)
        self._job_routes = JobRoutes(settings, self.jobs, self._answers, self._log, lambda: self.is_draining)
        self._generation_routes = GenerationRoutes(
            settings,
            self.jobs,
            self._job_routes.bodies,
            self._answers,
            self._log,
            lambda: self.is_draining,
            lambda: self.pool.health.get("sync_models"),
        )
        self._n_serving = 0  # requests from their arrival until their answer is made

    def routes(self, *, with_aws_routes: bool = False) -> list[BaseRoute]:
        """Return the routes. with_aws_routes: include SageMaker Runtime's own, so that AWS SDKs can call the server."""
        transcriptions = partial(self.serve, "transcriptions", uses_accept=False)
        routes: list[BaseRoute] = [
            Route("/ping", self.ping),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
            Route("/invocations", partial(self.serve, "invocations"), methods=["POST"]),
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            Route("/v1/visemes", partial(self.serve, "visemes"), methods=["POST"]),
            Route("/api/generate", partial(self.serve, "generate"), methods=["POST"]),
            *self._job_routes.routes(),
            *self._generation_routes.routes(),
            *self.live.routes(self.download_origin.find),
        ]
        if not self.settings.on_sagemaker or self.settings.realtime:
            routes += [
                *docs_routes(),
                Route(OPENAPI_PATH, self.show_api),
                Route("/v1/speech", self.show_speech, methods=["GET"]),
                Route("/v1/speech", self.speak, methods=["POST"]),
            ]
        if with_aws_routes:
            streamed = "/endpoints/{name}/invocations-response-stream"
            routes.append(Route("/endpoints/{name}/invocations", self.invoke_endpoint, methods=["POST"]))
            routes.append(Route(streamed, self.stream_from_endpoint, methods=["POST"]))
        return routes

    @property
    def speech(self) -> Synthesizer:
        """What speaks texts, in requests and in live sessions."""
        return self.live.speech

    @speech.setter
    def speech(self, synthesizer: Synthesizer) -> None:
        self.live.speech = synthesizer

    @property
    def is_draining(self) -> bool:
        return self.live.is_draining

    @property
    def n_in_flight(self) -> int:
        """Requests that arrive, wait, run or are being answered, jobs, and live sessions with speech left to play."""
        n_serving = self._n_serving + self._job_routes.n_submitting + self._generation_routes.n_submitting
        return n_serving + self._answers.n_sending + self.jobs.n_running + self.live.n_speaking

    def drain(self) -> None:
        """Accept no new requests; /ping reports it."""
        self.live.drain()
        self.jobs.drain()

    @property
    def is_ready(self) -> bool:
        return self.pool.is_ready and not self.is_draining

    async def ping(self, _request: Request) -> Response:
        """Return an empty 200 if the models are loaded and a worker is alive; else 503."""
        return Response(status_code=200 if self.is_ready else 503)

    async def health(self, _request: Request) -> Response:
        """Return the status, and what the worker reported when it started."""
        status = "ok" if self.is_ready else "draining" if self.is_draining else "not ready"
        return JSONResponse({"status": status, "inference_ready": False} | self.pool.health | {"status": status})

    async def show_api(self, _request: Request) -> Response:
        """Return the description of the HTTP routes. It needs no token: it reveals nothing of the deployment."""
        document = await asyncio.to_thread(describe_api)
        return JSONResponse(document, headers={"cache-control": "no-cache"})

    async def show_metrics(self, _request: Request) -> Response:
        self.metrics.in_flight.set(self.pool.n_in_flight)
        self.metrics.restarts.set(self.pool.n_restarts)
        self.metrics.ready.set(self.is_ready)
        self.metrics.sessions.set(self.live.n_sessions)
        counts = self.live.frame_counts
        self.metrics.count_frames(counts.n_frames, counts.n_late, counts.n_dropped)
        self.metrics.measure_memory(one.pid for one in multiprocessing.active_children() if one.pid is not None)
        with contextlib.suppress(StorageError):  # the numbers of jobs stay as they were
            await self._measure_jobs()
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _measure_jobs(self) -> None:
        """Set the gauges of the jobs. Raises: StorageError."""
        if (found := await self.jobs.statistics()) is not None:
            self.metrics.jobs_queued.set(found.n_queued)
            self.metrics.jobs_running.set(found.n_running)
            self.metrics.jobs_oldest_wait.set(found.oldest_wait_s)
            self.metrics.job_attempts.set(found.n_attempts)
            self.metrics.job_input_bytes.set(found.n_input_bytes)
            self.metrics.jobs_swept.set(self.jobs.n_swept)

    async def invoke_endpoint(self, request: Request) -> Response:
        """Answer `POST /endpoints/NAME/invocations`, for any name, as SageMaker Runtime does."""
        response = await self.serve("invocations", request)
        return as_model_error(response) if response.status_code >= 400 else response

    async def stream_from_endpoint(self, request: Request) -> Response:
        """Answer `POST /endpoints/NAME/invocations-response-stream`, for any name, as SageMaker Runtime does."""
        response = await self.serve("invocations", accept_of_stream(request))
        return as_model_error(response) if response.status_code >= 400 else EventStreamResponse(response)

    async def serve(self, route: str, request: Request, *, uses_accept: bool = True) -> Response:
        """Answer one request. Every error becomes its status here, and nowhere else.

        uses_accept: whether the Accept header selects the type of the answer.
        """
        self._n_serving += 1
        try:
            return await self._answer_traced(RequestContext.of(route, request), request, uses_accept=uses_accept)
        finally:
            self._n_serving -= 1

    async def _answer_traced(self, context: RequestContext, request: Request, *, uses_accept: bool) -> Response:
        """Answer one request within a span, which continues the caller's if the request has a traceparent."""
        name, parent = f"{request.method} {context.route}", request.headers.get(TRACEPARENT)
        with span(name, parent, is_server=True, request_id=context.request_id) as traced:
            response = await self._answer(context, request, uses_accept=uses_accept)
            if traced is not None:
                traced.set_attribute("http.response.status_code", response.status_code)
            return response

    async def _answer(self, context: RequestContext, request: Request, *, uses_accept: bool) -> Response:
        """Answer one request. It has a place in the queue from when its body is in until its answer is made."""
        stack, place = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        worker_request: WorkerRequest | None = None
        try:
            self.check_accepting(request)
            self.pool.check_capacity()  # before a large body arrives in vain
            worker_request = await self.receive_request(context, request, stack, uses_accept=uses_accept)
            await place.enter_async_context(self.pool.admit())
            messages = self.pool.run(worker_request)
            place.push_async_callback(messages.aclose)
            first = await wait_unless_disconnected(request, anext(messages))
        except Exception as err:  # noqa: BLE001 - the edge: `error_response` logs what is unexpected
            await place.aclose()
            await stack.aclose()
            return self.error_response(context, err, Response if worker_request else early_response_class(err))
        if isinstance(first, Part):
            parts = ReadAhead(first, messages, place)
            stack.push_async_callback(parts.aclose)
            return self.stream_response(context, parts, worker_request.deadline + STREAM_GRACE_S, stack)
        await place.aclose()
        if isinstance(first, Done) and isinstance(first.body, Path):
            return self.file_response(context, first.body, first.content_type, stack)
        await stack.aclose()
        if isinstance(first, Failed):
            return self.failure_response(context, first.failure)
        assert isinstance(first, Done)
        assert isinstance(first.body, bytes)
        return self.final_response(context, first.body, first.content_type)

    async def show_speech(self, request: Request) -> Response:
        """Return whether text can be spoken, and in which languages."""
        context = RequestContext.of("speech", request)
        try:
            check_token(request.headers, self.settings.token)
        except AccessDenied as err:
            return self.error_response(context, err, Response)
        self.record(context, 200)
        found = {"available": self.speech.is_available} | self.speech.describe()
        return JSONResponse(found, headers=context.headers | {"cache-control": "no-store"})

    async def speak(self, request: Request) -> Response:
        """Answer `POST /v1/speech`: speak a text."""
        context, body = RequestContext.of("speech", request), None
        self._n_serving += 1
        try:
            body = await self._receive_text(request)
            wanted = speech_requests.parse_speech_request(body, request.headers.get("content-type", ""))
            audio = await self.speech.synthesize(wanted)
        except Exception as err:  # noqa: BLE001 - the edge, as in `serve`
            return self.error_response(context, err, early_response_class(err) if body is None else Response)
        finally:
            self._n_serving -= 1
        return self.final_response(context, audio, WAV)

    async def _receive_text(self, request: Request) -> bytes:
        """Return the body of a request to speak. Raises: NotReady, AccessDenied; the errors of `body_on_disk`."""
        if self.is_draining:
            raise NotReady("the server is going down; try another one")
        check_token(request.headers, self.settings.token)
        async with body_on_disk(request, SPEECH_LIMITS, self._bodies, self.upload_client_of(request)) as body:
            return body.read_bytes()

    async def receive_request(
        self, context: RequestContext, request: Request, stack: contextlib.AsyncExitStack, *, uses_accept: bool
    ) -> WorkerRequest:
        """Write the body to disk and describe the request for a worker. stack: deletes the body.

        Raises: UnsupportedContentType, before the body is read, if no type of answer is accepted; the errors of
        `body_on_disk`.
        """
        accept = AcceptHeader.parse(request.headers.get("accept") if uses_accept else None)
        is_streamed = accept.choose(ANSWER_TYPES) == NDJSON  # or not: a task's types are known once its body is parsed
        limits = limits_of(request.headers, self.settings, is_streamed=is_streamed)
        headers = {name: request.headers[name] for name in WORKER_HEADERS if name in request.headers}
        body = await stack.enter_async_context(
            body_on_disk(request, limits, self._bodies, self.upload_client_of(request))
        )
        now = time.monotonic()
        deadline, sync_deadline = now + limits.deadline_s, now + limits.sync_deadline_s
        return WorkerRequest(
            context.route,
            headers,
            body,
            context.request_id,
            accept,
            deadline,
            sync_deadline,
            traceparent=current_traceparent(),
        )

    def upload_client_of(self, request: Request) -> str | None:
        """Return the client whose uploads are counted: None on SageMaker and on this machine, behind which are many."""
        client = self.live.client_of(request)
        return None if self.settings.on_sagemaker or is_loopback(client) else client

    def check_accepting(self, request: Request) -> None:
        """Raise NotReady or AccessDenied if the request cannot be accepted."""
        if self.is_draining:
            raise NotReady("the server is going down; try another one")
        if not self.pool.is_ready:
            raise NotReady("the models are not loaded")
        check_token(request.headers, self.settings.token)

    def final_response(self, context: RequestContext, body: bytes, content_type: str) -> Response:
        """Return a response with an answer in memory. A large one is sent as a file is, within its limits."""
        if len(body) > CHUNK_BYTES:
            stack = contextlib.AsyncExitStack()
            return self.sized_response(context, pieces_of(body), len(body), content_type, stack)
        self.record(context, 200)
        return Response(body, headers=context.headers | {"content-type": content_type})

    def file_response(
        self, context: RequestContext, path: Path, content_type: str, stack: contextlib.AsyncExitStack
    ) -> Response:
        """Return a response that sends a file from disk; stack: deletes it once it is sent."""
        size = path.stat().st_size
        return self.sized_response(context, read_pieces(path, size), size, content_type, stack)

    def sized_response(
        self,
        context: RequestContext,
        pieces: AsyncGenerator[bytes],
        size: int,
        content_type: str,
        stack: contextlib.AsyncExitStack,
    ) -> Response:
        """Return a response that sends so many bytes piece by piece, and counts among the answers that are sent."""

        async def counted() -> AsyncGenerator[bytes]:
            is_sent = False
            try:
                async with contextlib.aclosing(pieces):
                    async for piece in pieces:
                        yield piece
                is_sent = True
            finally:
                if is_sent:
                    self.record(context, 200)
                else:
                    self.record(context, 499, "canceled")

        headers = context.headers | {"content-length": str(size), "content-type": content_type}
        deadline = time.monotonic() + FILE_SEND_TIMEOUT_S
        return CleanupStreamingResponse(counted(), stack, deadline, self._answers, headers=headers)

    def stream_response(
        self, context: RequestContext, parts: ReadAhead, deadline: float, stack: contextlib.AsyncExitStack
    ) -> Response:
        """Return a response that sends lines as they come; stack: ends the request if the caller disconnects."""
        lines = self.stream(context, parts)
        return CleanupStreamingResponse(
            lines, stack, deadline, self._answers, media_type=NDJSON, headers=context.headers
        )

    def error_response(self, context: RequestContext, err: Exception, response_class: type[Response]) -> Response:
        """Return the response for an error, which is logged if it is unexpected."""
        failure = failure_of(err)
        if failure.code == "internal_error":
            logger.error("unexpected error", exc_info=err, extra={"request_id": context.request_id})
        return self.failure_response(context, failure, response_class)

    def failure_response(
        self, context: RequestContext, failure: Failure, response_class: type[Response] = Response
    ) -> Response:
        self.record(context, failure.status, failure.code)
        return response_class(failure.body(), failure.status, headers=context.headers | failure.headers())

    def record(self, context: RequestContext, status: int, code: str | None = None) -> None:
        """Count and log an answered request. code: of its error."""
        self._log.record(context.route, context.request_id, context.started, status, code)

    async def stream(self, context: RequestContext, messages: AsyncIterator[AnswerMessage]) -> AsyncGenerator[bytes]:
        """Yield lines while the video is read. A failure is the last line, and aborts the response."""
        try:
            while isinstance(message := await anext(messages), Part):
                yield message.body
        except Exception as err:  # noqa: BLE001 - the edge, as in `serve`
            message = Failed(failure_of(err))
        except BaseException:  # the caller disconnected
            self.record(context, 499, "canceled")
            raise
        if isinstance(message, Failed):
            failure = message.failure
            yield failure.body() + b"\n"
            self.record(context, failure.status, failure.code)
            raise StreamAborted(failure.code)
        assert isinstance(message, Done)
        assert isinstance(message.body, bytes)
        try:
            async for piece in pieces_of(message.body):
                yield piece
        except BaseException:  # the caller disconnected
            self.record(context, 499, "canceled")
            raise
        self.record(context, 200)


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document."""
    from container.openapi import make_document

    return make_document()


async def pieces_of(body: bytes) -> AsyncGenerator[bytes]:
    """Yield a body in pieces: each is sent once the caller has taken most of the one before."""
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]


async def read_pieces(path: Path, size: int) -> AsyncGenerator[bytes]:
    """Yield a file in pieces. By its size: a caller that has everything may leave before a last, empty read returns."""
    n_left = size
    with path.open("rb") as file:
        while n_left and (piece := await asyncio.to_thread(file.read, CHUNK_BYTES)):
            yield piece
            n_left -= len(piece)


async def wait_unless_disconnected(request: Request, awaited: Awaitable[AnswerMessage]) -> AnswerMessage:
    """Return the awaited message. Raises: Canceled if the caller disconnects before it arrives."""
    work = asyncio.ensure_future(awaited)
    disconnected = asyncio.create_task(wait_for_disconnect(request))
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise Canceled("the caller disconnected")
        return work.result()
    finally:
        disconnected.cancel()


async def wait_for_disconnect(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.25)


def echoed_headers(request: Request) -> dict[str, str]:
    """Return the headers to send back: SageMaker passes on only custom attributes that the container echoes."""
    given = request.headers.get(OPTIONS_HEADER)
    return {"X-Amzn-SageMaker-Custom-Attributes": given} if given else {}


def make_app(server: Server, *, with_aws_routes: bool = False) -> Starlette:
    """Return the ASGI application; its lifespan starts and stops the workers. Raises: InvalidRequest."""
    check_webhook_secret(server.settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await delete_leftovers()
        await server.pool.start()
        try:
            async with server.live.running():
                await server.jobs.start()
                yield
        finally:
            await server.jobs.stop()
            await server.pool.stop()

    return Starlette(
        routes=server.routes(with_aws_routes=with_aws_routes),
        lifespan=lifespan,
        exception_handlers={404: not_found, 405: not_found},
        middleware=middleware_of(server),
    )


def middleware_of(server: Server) -> list[Middleware]:
    """Return what each request passes before its route, from the outside. Raises: InvalidRequest."""
    settings = server.settings
    rules, n_proxies = AccessRules.of(settings), settings.trusted_proxies
    exempt = PLATFORM_PATHS if rules.is_on_sagemaker else frozenset[str]()  # the platform calls for everybody
    found = [
        Middleware(PacingMiddleware, pacer=server.live.pacer, n_proxies=n_proxies, unpaced=exempt),
        Middleware(AccessMiddleware, rules=rules),
    ]
    if settings.rate_limit is not None:
        from container.http.rate_limit import RateLimitMiddleware, parse_rate

        rate = parse_rate(settings.rate_limit)
        found.append(
            Middleware(RateLimitMiddleware, rate=rate, token=settings.token, n_proxies=n_proxies, exempt=exempt)
        )
    return found


def check_webhook_secret(settings: Settings) -> None:
    """Check the secret of webhooks at the start, not when the first is sent. Raises: InvalidRequest."""
    if settings.webhook_secret is not None:
        from container.jobs.webhooks import WebhookSigner

        WebhookSigner(settings.webhook_secret)


async def delete_leftovers() -> None:
    """Delete the temporary folders of servers that were killed."""
    n_folders = await asyncio.to_thread(remove_orphans)
    if n_folders:
        logger.info("leftover folders of killed processes were deleted", extra={"folders": n_folders})


async def not_found(request: Request, err: Exception) -> Response:
    status = getattr(err, "status_code", 404)
    path = request.url.path
    failure = Failure(status, "invalid_request", f"{request.method} {path}: {not_offered(path) or 'no such route'}")
    return Response(error_body(failure, path), status, headers=failure.headers())
