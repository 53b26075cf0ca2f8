"""Submissions of generations: the job that each becomes."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers

from container.http.generation_errors import GenerationRejected
from container.jobs.api.callers import Caller
from container.jobs.api.submissions import (
    IDEMPOTENCY_HEADER,
    SubmissionRules,
    check_public_url,
    check_webhook_url,
    expected_outputs,
    idempotency_key_of,
)
from container.jobs.generations.forms import FORM, GenerationForm
from container.jobs.generations.requests import GenerationRequest
from container.jobs.generations.views import BASE_URL, REQUEST, ROUTE
from container.jobs.records import NewJob
from inference.errors import InvalidRequest, UnsupportedContentType
from inference.media_types import JSON
from inference.requests import parse_job_request
from inference.requests.body import load_object
from inference.requests.parse import media_type_of

HEADERS = {"content-type": JSON}  # of the job
INVALID_KEY = "INVALID_IDEMPOTENCY_KEY"
INLINE_NAMES = {"video": "face", "image": "face", "audio": "audio"}  # fields of the job's media in base64
PLACEHOLDER = "AAAA"  # base64 of some bytes, in the place of media that are not worth decoding


@dataclass(frozen=True)
class GenerationContext:
    """What a submission needs beside its body. models: checkpoints of this server. base_url: by which it was called."""

    caller: Caller
    request_id: str
    rules: SubmissionRules
    models: Sequence[str]
    base_url: str


def generation_key_of(headers: Headers) -> str | None:
    """Return the key by which a repetition is recognized; None without one. Raises: GenerationRejected."""
    if len(headers.getlist(IDEMPOTENCY_HEADER)) > 1:
        raise GenerationRejected(INVALID_KEY, "Idempotency-Key: found several; expected one")
    try:
        return idempotency_key_of(headers)
    except InvalidRequest as err:
        raise GenerationRejected(INVALID_KEY, str(err)) from err


def read_generation(body: Path, headers: Headers, context: GenerationContext) -> NewJob:
    """Return the job that a request submits, whose body takes the place of the request's. Call it in a thread.

    Raises: GenerationRejected, InvalidRequest, UnsupportedContentType, MediaTooLarge.
    """
    key = generation_key_of(headers)
    fields, files = read_fields(body, headers.get("content-type", ""))
    request = GenerationRequest.parse(fields, context.models, frozenset(files))
    for kind, url in request.urls:
        check_public_url(url, kind, context.rules)
    if request.body.webhookUrl is not None:
        check_webhook_url(request.body.webhookUrl, "webhookUrl", context.rules)
    job_fields = request.job_fields()
    inline = {INLINE_NAMES[kind]: content for kind, content in files.items()}
    text = json.dumps(job_fields | dict.fromkeys(inline, PLACEHOLDER))
    parsed = parse_job_request(text, JSON, {})
    encoded = {name: base64.b64encode(content).decode() for name, content in inline.items()}
    body.write_text(json.dumps(job_fields | encoded))
    return NewJob(
        id=uuid.uuid4().hex,
        owner=context.caller.owner,
        client=context.caller.client,
        route=ROUTE,
        headers=HEADERS,
        request_sha256=digest_of_generation(fields, files),
        input_bytes=body.stat().st_size,
        task="lipsync",
        idempotency_key=key,
        webhook_url=request.body.webhookUrl,
        outputs=expected_outputs(parsed),
        request_id=context.request_id,
        extra={REQUEST: request.record(), BASE_URL: context.base_url},
    )


def read_fields(body: Path, content_type: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the fields of a request, and its files by their types. Raises: the errors of `read_generation`."""
    media_type = media_type_of(content_type)
    if media_type == FORM:
        form = GenerationForm.read(body, content_type)
        return form.fields(), form.files
    if media_type != JSON:
        raise UnsupportedContentType(f"content type {content_type[:100] or '(none)'}: expected {JSON} or {FORM}")
    return load_object(body.read_bytes(), "the body"), {}


def digest_of_generation(fields: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of what is requested: a form that is sent again has other boundaries."""
    digests = {kind: sha256(content).hexdigest() for kind, content in files.items()}
    return sha256(json.dumps([ROUTE, dict(fields), digests], sort_keys=True).encode()).hexdigest()
