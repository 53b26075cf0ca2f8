"""The routes of durable jobs: submitting, watching, canceling, and fetching what they made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from container.http.answers import AnswerQuota
from container.http.auth import check_token
from container.http.request_body import (
    MAX_ASYNC_BODY_BYTES,
    BodyQuota,
    RequestLimits,
    body_on_disk,
    check_content_length,
)
from container.http.request_log import RequestLog
from container.http.responses import CleanupStreamingResponse, early_response_class, request_id_of
from container.jobs.api.callers import Caller
from container.jobs.api.downloads import send_log, send_output
from container.jobs.api.events import (
    EVENT_STREAM,
    LAST_EVENT_ID,
    MAX_STREAM_S,
    MAX_STREAMS,
    EventFeed,
    last_sequence_of,
    stream_events,
)
from container.jobs.api.paging import Page, make_cursor
from container.jobs.api.submissions import SubmissionRules, idempotency_key_of, read_submission
from container.jobs.api.views import JOBS_PATH, job_path, summary_of, view_of
from container.jobs.records import JobEvent, JobRecord
from container.jobs.service import JobService
from inference.error_responses import Failure, failure_of
from inference.errors import NotReady
from inference.requests.deadlines import ASYNC_DEADLINE_S
from inference.settings import Settings

logger = logging.getLogger("viseme.jobs")
EARLY_CHECK_BYTES = 1 << 20  # bytes of a body above which its space is checked before it arrives
STREAM_GRACE_S = 60.0  # seconds for the last events of a stream that is at its limit
NO_STORE = {"cache-control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


class JobRoutes:
    """The HTTP routes over the jobs of a server."""

    def __init__(
        self,
        settings: Settings,
        service: JobService,
        answers: AnswerQuota,
        log: RequestLog,
        is_draining: Callable[[], bool],
    ) -> None:
        self._settings, self._service = settings, service
        self._answers, self._log, self._is_draining = answers, log, is_draining
        # Apart from other bodies, which arrive within seconds: those of jobs may take an hour.
        self.bodies = BodyQuota(settings.max_uploads, settings.max_upload_bytes)
        self._rules = SubmissionRules.of(settings)
        self._feed = EventFeed(self._read_events)
        self._streams = AnswerQuota(MAX_STREAMS)  # apart from answers: most of them wait for their job
        self.n_submitting = 0

    def routes(self) -> list[BaseRoute]:
        """Return the routes; none on SageMaker unless VISEME_REALTIME is set: only the platform can call there."""
        if self._settings.on_sagemaker and not self._settings.realtime:
            return []
        one = f"{JOBS_PATH}/{{id}}"
        return [
            Route(JOBS_PATH, partial(self._answer, self._submit), methods=["POST"]),
            Route(JOBS_PATH, partial(self._answer, self._list), methods=["GET"]),
            Route(one, partial(self._answer, self._show), methods=["GET"]),
            Route(one, partial(self._answer, self._cancel), methods=["DELETE"]),
            Route(f"{one}/events", partial(self._answer, self._stream), methods=["GET"]),
            Route(f"{one}/outputs/{{name}}", partial(self._answer, self._send_output), methods=["GET"]),
            Route(f"{one}/logs/{{attempt}}", partial(self._answer, self._send_log), methods=["GET"]),
        ]

    async def _answer(self, handler: Handler, request: Request) -> Response:
        """Answer one request. Every error becomes its status here, and nowhere else."""
        request_id, started, code = request_id_of(request), time.monotonic(), None
        request.state.request_id, request.state.has_body = request_id, request.method == "POST"
        try:
            check_token(request.headers, self._settings.token)
            response = await handler(request)
        except Exception as err:  # noqa: BLE001 - the edge: unexpected errors are logged
            failure = log_failure(err, request_id)
            response_class = early_response_class(err) if request.state.has_body else Response
            response, code = response_class(failure.body(), failure.status, headers=failure.headers()), failure.code
        response.headers["x-request-id"] = request_id
        self._log.record("jobs", request_id, started, response.status_code, code)
        return response

    async def _submit(self, request: Request) -> Response:
        """Queue a job. It is on the disk when this returns."""
        if self._is_draining():
            raise NotReady("the server is going down; try another one")
        self.n_submitting += 1
        try:
            return await self._receive(request)
        finally:
            self.n_submitting -= 1

    async def _receive(self, request: Request) -> Response:
        idempotency_key_of(request.headers)  # before a large body arrives in vain
        caller = Caller.of(request, self._settings)
        limits = RequestLimits(MAX_ASYNC_BODY_BYTES, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S)
        if (n_declared := check_content_length(request, limits.body_bytes)) > EARLY_CHECK_BYTES:
            await self._service.check_space(n_declared)
        async with body_on_disk(request, limits, self.bodies, caller.address) as body:
            request.state.has_body = False  # it has arrived
            new = await asyncio.to_thread(
                read_submission, body, dict(request.headers), caller, request.state.request_id, self._rules
            )
            submission = await self._service.submit(new, body)
        job = submission.job
        headers = NO_STORE | {"location": job_path(job.id)}
        return JSONResponse(view_of(job), 202 if submission.is_new else 200, headers=headers)

    async def _list(self, request: Request) -> Response:
        """Return jobs from the newest to the oldest, and a cursor if there are more."""
        page = Page.parse(request.query_params)
        store = await self._service.open()
        owner = Caller.of(request, self._settings).owner
        found = await asyncio.to_thread(store.repository.list_page, page.limit + 1, page.before, owner, page.state)
        jobs, more = found[: page.limit], found[page.limit :]
        cursor = make_cursor(jobs[-1].number) if more else None
        return JSONResponse({"jobs": [summary_of(job) for job in jobs], "next_cursor": cursor}, headers=NO_STORE)

    async def _show(self, request: Request) -> Response:
        return JSONResponse(view_of(await self._find(request)), headers=NO_STORE)

    async def _cancel(self, request: Request) -> Response:
        """Cancel a job; a finished one stays as it is."""
        store = await self._service.open()
        owner = Caller.of(request, self._settings).owner
        job = await asyncio.to_thread(store.repository.cancel, request.path_params["id"], owner)
        return JSONResponse(view_of(job), headers=NO_STORE)

    async def _stream(self, request: Request) -> Response:
        """Stream the events of a job; 204 if none will follow those that the client has, so that it does not retry."""
        sequence = last_sequence_of(request.headers.get(LAST_EVENT_ID))
        job = await self._find(request)
        if request.method == "HEAD":
            return Response(media_type=EVENT_STREAM, headers=NO_STORE)
        if job.state.is_final and not (await self._read_events([(job.number, sequence)]))[0]:
            return Response(status_code=204)
        stack = contextlib.AsyncExitStack()
        stack.enter_context(self._feed.opened(Caller.of(request, self._settings).address))
        events = stream_events(job, sequence, self._feed, self._is_draining)
        headers = NO_STORE | {"x-accel-buffering": "no", "x-request-id": request.state.request_id}
        deadline = time.monotonic() + MAX_STREAM_S + STREAM_GRACE_S
        return CleanupStreamingResponse(
            events, stack, deadline, self._streams, media_type=EVENT_STREAM, headers=headers
        )

    async def _send_output(self, request: Request) -> Response:
        store = await self._service.open()
        return await send_output(request, await self._find(request), store.storage, self._answers)

    async def _send_log(self, request: Request) -> Response:
        store = await self._service.open()
        return await send_log(request, await self._find(request), store.storage, self._answers)

    async def _find(self, request: Request) -> JobRecord:
        """Return the job in the path. Raises: JobNotFound, also if it is another owner's."""
        store = await self._service.open()
        owner = Caller.of(request, self._settings).owner
        return await asyncio.to_thread(store.repository.find, request.path_params["id"], owner)

    async def _read_events(self, places: Sequence[tuple[int, int]]) -> list[list[JobEvent]]:
        store = await self._service.open()

        def read() -> list[list[JobEvent]]:
            return [store.repository.events_after(number, sequence) for number, sequence in places]

        return await asyncio.to_thread(read)


def log_failure(err: Exception, request_id: str) -> Failure:
    """Return what callers receive of an error, which is logged if it is unexpected."""
    failure = failure_of(err)
    if failure.code == "internal_error":
        logger.error("unexpected error", exc_info=err, extra={"request_id": request_id})
    return failure
