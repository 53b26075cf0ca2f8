"""Submissions of jobs: what they say, checked as far as that takes little time before they are queued.

A body of JSON is the body of `POST /invocations`, and may also have "webhook_url" and "webhook_events"; other bodies,
and large ones, have the headers X-Webhook-Url and X-Webhook-Events instead.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from container.jobs.api.callers import Caller
from container.jobs.api.shortened_json import read_shortened
from container.jobs.records import FINAL_STATES, NewJob
from container.jobs.storage import digest_of
from container.worker.output_names import video_names
from inference.errors import CallerError, InvalidRequest
from inference.media_types import JSON
from inference.requests import OPTIONS_HEADER, SyncRequest, UrlObject, parse_job_request
from inference.requests.body import load_object, shorten
from inference.requests.parse import JobRequest, media_type_of
from inference.settings import Settings

ROUTE = "invocations"  # of the worker
WEBHOOK_URL, WEBHOOK_EVENTS = "webhook_url", "webhook_events"
WEBHOOK_HEADERS = {"x-webhook-url": WEBHOOK_URL, "x-webhook-events": WEBHOOK_EVENTS}
IDEMPOTENCY_HEADER = "idempotency-key"
IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._~-]{1,128}")
REQUEST_HEADERS = ("content-type", OPTIONS_HEADER)  # what the worker receives
EVENT_TYPES = tuple(f"job.{state}" for state in FINAL_STATES)
MAX_PARSED_BYTES = 1 << 20  # bytes of JSON, without long strings, that are parsed before the job is queued
UNKNOWN_TASK = "unknown"  # of JSON that is larger even so, until the worker parses it


@dataclass(frozen=True)
class Webhook:
    """Where the end of a job is reported. events: those to report; empty for all."""

    url: str
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubmissionRules:
    """What a deployment accepts. has_webhooks: whether webhooks can be signed. url_hosts: see `UrlRules`."""

    has_webhooks: bool = False
    url_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.webhook_secret is not None, settings.allowed_url_hosts)


def idempotency_key_of(headers: Mapping[str, str]) -> str | None:
    """Return the key by which a repetition is recognized; None without one. Raises: InvalidRequest."""
    key = headers.get(IDEMPOTENCY_HEADER)
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest(
            f"Idempotency-Key: found {shorten(key)}; expected 1 to 128 of A-Z, a-z, 0-9, '.', '_', '~', '-'"
        )
    return key


def read_submission(
    body: Path, headers: Mapping[str, str], caller: Caller, request_id: str, rules: SubmissionRules
) -> NewJob:
    """Return the job that a request submits. It reads the whole body: call it in a thread.

    body: may be rewritten, without the fields of the webhook. headers: names in lower case.
    Raises: InvalidRequest, UnsupportedContentType.
    """
    key = idempotency_key_of(headers)
    n_bytes, body_sha256 = digest_of(body)
    passed = {name: headers[name] for name in REQUEST_HEADERS if name in headers}
    options = {field: headers[name] for name, field in WEBHOOK_HEADERS.items() if name in headers}
    digest = digest_request(passed, options, body_sha256)
    request, fields = parse_body(body, n_bytes, passed)
    if request is not None:
        check_media_urls(request, rules)
    webhook = parse_webhook(options | fields, rules)
    return NewJob(
        id=uuid.uuid4().hex,
        owner=caller.owner,
        client=caller.client,
        route=ROUTE,
        headers=passed,
        request_sha256=digest,
        input_bytes=body.stat().st_size,
        task=UNKNOWN_TASK if request is None else request.task,
        idempotency_key=key,
        webhook_url=None if webhook is None else webhook.url,
        webhook_events=() if webhook is None else webhook.events,
        outputs=expected_outputs(request),
        request_id=request_id,
    )


def check_media_urls(request: JobRequest, rules: SubmissionRules) -> None:
    """Raise InvalidRequest if a URL names an address that is not public; names are looked up once the job runs."""
    for name, source in request.sources:
        if isinstance(source, UrlObject):
            check_public_url(source.url, f"{name}_url", rules)


def digest_request(headers: Mapping[str, str], options: Mapping[str, str], body_sha256: str) -> str:
    """Return the SHA-256 of all that a submission says."""
    return sha256(json.dumps([ROUTE, dict(headers), dict(options), body_sha256], sort_keys=True).encode()).hexdigest()


def parse_body(body: Path, n_bytes: int, headers: Mapping[str, str]) -> tuple[JobRequest | None, dict[str, Any]]:
    """Check a body. Returns: the request, None if it is too large to be parsed here; the fields of its webhook.

    The media of a large body are not those of the request that is returned.
    Raises: InvalidRequest, UnsupportedContentType.
    """
    content_type = headers.get("content-type", "")
    if media_type_of(content_type) != JSON:
        with body.open("rb") as file:
            first = file.read(1)  # the options are in the headers; of raw media only an empty body is wrong
        return parse_job_request(first, content_type, headers), {}
    if n_bytes > MAX_PARSED_BYTES:
        check_no_webhook(body)
        shortened = read_shortened(body, MAX_PARSED_BYTES)
        return (None if shortened is None else parse_job_request(shortened, content_type, headers)), {}
    fields = load_object(body.read_bytes(), "the body")
    webhook = {name: fields.pop(name) for name in (WEBHOOK_URL, WEBHOOK_EVENTS) if name in fields}
    text = json.dumps(fields).encode()
    request = parse_job_request(text, content_type, headers)
    if webhook:
        body.write_bytes(text)
    return request, webhook


def check_no_webhook(body: Path) -> None:
    """Raise InvalidRequest if JSON that is not parsed here has the field of a webhook, which would never be called."""
    name = f'"{WEBHOOK_URL}"'.encode()
    last = b""
    with body.open("rb") as file:
        while chunk := file.read(MAX_PARSED_BYTES):
            if name in last + chunk:
                raise InvalidRequest(
                    f'"{WEBHOOK_URL}": in JSON of over {MAX_PARSED_BYTES} bytes; expected the header X-Webhook-Url'
                )
            last = chunk[-len(name) :]


def parse_webhook(fields: Mapping[str, Any], rules: SubmissionRules) -> Webhook | None:
    """Check the fields of a webhook. Raises: InvalidRequest."""
    url, events = fields.get(WEBHOOK_URL), fields.get(WEBHOOK_EVENTS)
    if url is None:
        if events is not None:
            raise InvalidRequest('"webhook_events": expected "webhook_url" as well')
        return None
    return Webhook(check_webhook_url(url, WEBHOOK_URL, rules), parse_event_types(events))


def check_webhook_url(url: object, label: str, rules: SubmissionRules) -> str:
    """Return the URL of a webhook. label: its field. Raises: InvalidRequest if this server will not call it."""
    if not rules.has_webhooks:
        raise InvalidRequest(f'"{label}": this server sends no webhooks; VISEME_WEBHOOK_SECRET turns them on')
    if not isinstance(url, str):
        raise InvalidRequest(f'"{label}": found {shorten(url)}; expected a URL')
    return check_public_url(url, label, rules)


def check_public_url(url: str, label: str, rules: SubmissionRules) -> str:
    """Return a URL that may be requested later, as far as that is known without a look-up. Raises: InvalidRequest."""
    from inference.media.outbound import UrlRules

    try:
        UrlRules(rules.url_hosts).check_literal(url)
    except CallerError as err:
        raise InvalidRequest(f'"{label}": {err}') from err
    return url


def parse_event_types(events: object) -> tuple[str, ...]:
    """Return the types of events that a webhook is for: a list, or in a header separated by commas."""
    found = [one.strip() for one in events.split(",")] if isinstance(events, str) else [] if events is None else events
    if not isinstance(found, list) or any(one not in EVENT_TYPES for one in found):
        raise InvalidRequest(f'"webhook_events": found {shorten(events)}; expected some of {", ".join(EVENT_TYPES)}')
    return tuple(dict.fromkeys(found))


def expected_outputs(request: JobRequest | None) -> tuple[str, ...]:
    """Return the names of the outputs that are known before the job runs."""
    if not isinstance(request, SyncRequest):
        return ()
    return video_names(list(dict.fromkeys(request.models)))
