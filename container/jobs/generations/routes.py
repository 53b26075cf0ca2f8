"""The routes of generations: sync.so's API over durable jobs, so that its unmodified clients can call this server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from container.http.answers import AnswerQuota
from container.http.auth import check_token
from container.http.generation_errors import GenerationRejected, generation_error
from container.http.request_body import (
    BODY_TIMEOUT_S,
    BodyQuota,
    RequestLimits,
    body_on_disk,
    check_content_length,
)
from container.http.request_log import RequestLog
from container.http.responses import early_response_class, request_id_of
from container.jobs.api.callers import Caller
from container.jobs.api.downloads import BINARY, send_file
from container.jobs.api.routes import EARLY_CHECK_BYTES, NO_STORE, log_failure
from container.jobs.api.submissions import MAX_PARSED_BYTES, SubmissionRules
from container.jobs.generations.base_urls import base_url_of
from container.jobs.generations.forms import FORM, MAX_FILE_BYTES
from container.jobs.generations.listing import GenerationFilter
from container.jobs.generations.signed_urls import check_result_token
from container.jobs.generations.submissions import GenerationContext, generation_key_of, read_generation
from container.jobs.generations.views import REQUEST, ROUTE, generation_view
from container.jobs.records import JobRecord, JobState
from container.jobs.service import JobService, JobStore
from inference.error_responses import Failure
from inference.errors import AccessDenied, InvalidRequest, JobNotFound, MediaNotFound, NotReady
from inference.requests.parse import media_type_of
from inference.settings import Settings

GENERATE, LISTING, MODELS = "/v2/generate", "/v2/generations", "/v2/models"
MAX_FORM_BYTES = 2 * MAX_FILE_BYTES + MAX_PARSED_BYTES
FORM_TIMEOUT_S = 900.0  # seconds for a form to arrive
MAX_FORMS = 2  # forms that are parsed at once: each takes several times its size in memory
UNAUTHORIZED = 401  # what clients of sync.so expect if the key is wrong
Handler = Callable[[Request], Awaitable[Response]]


class GenerationRoutes:
    """The HTTP routes of generations. n_submitting: requests that are being received."""

    def __init__(
        self,
        settings: Settings,
        service: JobService,
        bodies: BodyQuota,
        answers: AnswerQuota,
        log: RequestLog,
        is_draining: Callable[[], bool],
        list_models: Callable[[], Sequence[str] | None],
    ) -> None:
        """list_models: returns the lip-sync checkpoints, the default first; None while they are not loaded."""
        self._settings, self._service, self._bodies, self._answers, self._log = (
            settings,
            service,
            bodies,
            answers,
            log,
        )
        self._is_draining, self._list_models = is_draining, list_models
        self._rules = SubmissionRules.of(settings)
        self._forms = asyncio.Semaphore(MAX_FORMS)
        self.n_submitting = 0

    def routes(self) -> list[BaseRoute]:
        """Return the routes; none if the platform alone can call, as for those of jobs."""
        if self._settings.on_sagemaker and not self._settings.realtime:
            return []
        return [
            Route(GENERATE, partial(self._answer, self._submit), methods=["POST"]),
            Route(f"{GENERATE}/{{id}}", partial(self._answer, self._show), methods=["GET"]),
            Route(LISTING, partial(self._answer, self._list), methods=["GET"]),
            Route(f"{LISTING}/{{id}}/result", partial(self._answer, self._send_result), methods=["GET"]),
            Route(MODELS, partial(self._answer, self._show_models), methods=["GET"]),
        ]

    async def _answer(self, handler: Handler, request: Request) -> Response:
        """Answer one request. Every error becomes its status here, in the form of sync.so."""
        request_id, started, failure = request_id_of(request), time.monotonic(), None
        request.state.request_id, request.state.has_body = request_id, request.method == "POST"
        try:
            if handler != self._send_result:  # whose URL has a token of its own
                self._check_key(request)
            response = await handler(request)
        except Exception as err:  # noqa: BLE001 - the edge: unexpected errors are logged
            failure = failure_at(request, err)
            response_class = early_response_class(err) if request.state.has_body else Response
            body = generation_error(failure, err.code if isinstance(err, GenerationRejected) else None)
            response = response_class(body, failure.status, headers=failure.headers())
        response.headers["x-request-id"] = request_id
        code = None if failure is None else failure.code
        self._log.record("generations", request_id, started, response.status_code, code)
        return response

    def _check_key(self, request: Request) -> None:
        """Raise AccessDenied, with `request.state.is_unauthorized` set, if the key is wrong."""
        try:
            check_token(request.headers, self._settings.token)
        except AccessDenied:
            request.state.is_unauthorized = True
            raise

    async def _submit(self, request: Request) -> Response:
        """Queue a generation. It is on the disk when this returns."""
        if self._is_draining():
            raise NotReady("the server is going down; try another one")
        self.n_submitting += 1
        try:
            return await self._receive(request)
        finally:
            self.n_submitting -= 1

    async def _receive(self, request: Request) -> Response:
        generation_key_of(request.headers)  # before a large body arrives in vain
        caller = Caller.of(request, self._settings)
        base_url = self._base_url(request)
        context = GenerationContext(caller, request.state.request_id, self._rules, self._models(), base_url)
        limits = limits_of_body(request)
        if (n_declared := check_content_length(request, limits.body_bytes)) > EARLY_CHECK_BYTES:
            await self._service.check_space(n_declared)
        async with body_on_disk(request, limits, self._bodies, caller.address) as body:
            request.state.has_body = False  # it has arrived
            async with self._forms:
                new = await asyncio.to_thread(read_generation, body, request.headers, context)
            submission = await self._service.submit(new, body)
        (view,) = await self._views(await self._service.open(), [submission.job], request)
        headers = NO_STORE | {"location": f"{GENERATE}/{submission.job.id}"}
        return JSONResponse(view, 201 if submission.is_new else 200, headers=headers)

    async def _show(self, request: Request) -> Response:
        if request.query_params:
            raise InvalidRequest(f'"{min(request.query_params)[:40]}": not offered; expected no parameters')
        store = await self._service.open()
        owner = Caller.of(request, self._settings).owner
        job = await find_generation(store, request.path_params["id"], owner)
        (view,) = await self._views(store, [job], request)
        return JSONResponse(view, headers=NO_STORE)

    async def _list(self, request: Request) -> Response:
        """Return generations from the newest to the oldest."""
        chosen = GenerationFilter.parse(request.query_params)
        store = await self._service.open()
        owner = Caller.of(request, self._settings).owner
        before = None if chosen.cursor is None else (await find_generation(store, chosen.cursor, owner)).number
        found = await asyncio.to_thread(
            store.repository.list_of_route, ROUTE, owner, chosen.limit, before, chosen.states, chosen.ids
        )
        return JSONResponse(await self._views(store, found, request), headers=NO_STORE)

    async def _send_result(self, request: Request) -> Response:
        """Send the video of a generation, or redirect to S3, to anyone who has its URL."""
        store = await self._service.open()
        job_id = request.path_params["id"]
        key = await asyncio.to_thread(store.repository.url_key)
        check_result_token(request.query_params.get("token", ""), job_id, key, time.time())
        job = await find_generation(store, job_id, None)
        output = next((one for one in job.outputs if one.state is JobState.SUCCEEDED), None)
        if output is None or output.key is None:
            raise MediaNotFound(f"the generation is {job.state}; expected one that has succeeded")
        place = job.id, output.key
        name = f"{job.extra[REQUEST].get('outputFileName') or job.id}.mp4"
        media_type = output.content_type or BINARY
        return await send_file(request, place, store.storage, self._answers, media_type, name, output.sha256)

    async def _show_models(self, _request: Request) -> Response:
        """Return the checkpoints of this server."""
        found = [model_view(name) for name in self._models()]
        return JSONResponse(found, headers=NO_STORE)

    def _models(self) -> Sequence[str]:
        models = self._list_models()
        if models is None:
            raise NotReady("the models are not loaded")
        return models

    def _base_url(self, request: Request) -> str:
        return base_url_of(request, self._settings.trusted_proxies)

    async def _views(self, store: JobStore, found: Sequence[JobRecord], request: Request) -> list[dict[str, Any]]:
        key = await asyncio.to_thread(store.repository.url_key)
        base_url, now = self._base_url(request), time.time()
        return [generation_view(job, base_url, key, now) for job in found]


def limits_of_body(request: Request) -> RequestLimits:
    """Return the limits of a request: higher ones for a form, which has media."""
    is_form = media_type_of(request.headers.get("content-type")) == FORM
    n_bytes, timeout_s = (MAX_FORM_BYTES, FORM_TIMEOUT_S) if is_form else (MAX_PARSED_BYTES, BODY_TIMEOUT_S)
    return RequestLimits(n_bytes, timeout_s, timeout_s, timeout_s)


async def find_generation(store: JobStore, job_id: str, owner: str | None) -> JobRecord:
    """Return a generation. Raises: JobNotFound, also if it is another owner's, or a job of another kind."""
    job = await asyncio.to_thread(store.repository.find, job_id, owner)
    if job.route != ROUTE:
        raise JobNotFound("there is no such generation; GET /v1/jobs/ID may know it")
    return job


def failure_at(request: Request, err: Exception) -> Failure:
    """Return what the caller receives of an error; a wrong key is a 401, as clients of sync.so expect."""
    failure = log_failure(err, request.state.request_id)
    is_unauthorized = getattr(request.state, "is_unauthorized", False)
    return Failure(UNAUTHORIZED, failure.code, failure.message) if is_unauthorized else failure


def model_view(name: str) -> dict[str, Any]:
    """Return a checkpoint in the form of the class ModelInfo of sync.so's client."""
    return {
        "id": name,
        "name": name,
        "type": "lipsync",
        "version": version("viseme"),
        "description": "Lip-sync checkpoint of this server; version is that of Viseme",
        "deprecatedAt": None,
    }
