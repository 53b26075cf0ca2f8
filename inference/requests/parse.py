"""Parse request bodies: the task they name, and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.media_types import JSON
from inference.requests.body import OPTIONS_HEADER, UrlObject, header_fields, load_object, shorten
from inference.requests.read import ReadRequest, options_of, parse_read_fields
from inference.requests.sync import SyncRequest, parse_generate_fields, parse_sync_fields
from inference.requests.visemes import VisemeRequest, parse_viseme_fields

RAW_TYPES = ("video/", "image/", "application/octet-stream", "application/mp4")
SPEECH_TYPES = ("audio/", *RAW_TYPES)  # of audio, and of videos with audio
READ, SYNC, VISEMES = "lipread", "lipsync", "visemes"
AUDIO_FIELDS = {"audio", "audio_url", "s3_audio_key", "audios", "audio_urls", "s3_audio_keys"}

JobRequest = ReadRequest | SyncRequest
Request = JobRequest | VisemeRequest


def parse_request(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> Request:
    """Parse the body of `POST /invocations`: JSON, or raw media with its options in a header.

    headers: names in lower case.
    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    request = parse_body(body, content_type, headers)
    for name, source in request.sources:
        if isinstance(source, UrlObject):
            raise InvalidRequest(
                f'"{name}_url": only jobs fetch URLs; submit this to POST /v1/jobs, or send the {name} in base64'
            )
    return request


def parse_job_request(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> JobRequest:
    """Parse the request of a durable job: as of `POST /invocations`, but its media may be at URLs.

    headers: names in lower case.
    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    request = parse_body(body, content_type, headers)
    if isinstance(request, VisemeRequest):
        raise InvalidRequest(f'"task": found {VISEMES!r}; jobs run {READ} or {SYNC}; send this to POST /v1/visemes')
    return request


def parse_body(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> Request:
    """Parse a request of any task. Raises: as `parse_request`."""
    media_type = media_type_of(content_type)
    if media_type == JSON:
        fields = load_object(body, "the body")
        task = fields.get("task", task_of(headers))
        if task not in (READ, SYNC, VISEMES):
            raise InvalidRequest(f'"task": found {shorten(task)}; expected {READ}, {SYNC} or {VISEMES}')
        if task == VISEMES:
            return parse_viseme_fields(fields)
        if task == SYNC:
            return parse_sync_fields(fields, headers)
        if AUDIO_FIELDS & set(fields):
            raise InvalidRequest(f'"task": {READ} takes no audio; expected "{SYNC}" for lip sync')
        return parse_read_fields(fields)
    if media_type.startswith(RAW_TYPES):
        if task_of(headers) == SYNC:
            raise InvalidRequest(f'"task": {SYNC} takes a face and audio; expected {JSON} with both')
        if not body:
            raise InvalidRequest("the body is empty; expected a video")
        raw = body.encode("latin-1") if isinstance(body, str) else body
        return ReadRequest(raw, options_of(headers))
    raise UnsupportedContentType(
        f"content type {content_type or '(none)'}: expected {JSON}, or the video itself as video/*, "
        f"application/mp4 or application/octet-stream"
    )


def parse_generate_request(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> SyncRequest:
    """Parse the body of `POST /api/generate`.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    if media_type_of(content_type) != JSON:
        raise UnsupportedContentType(f"content type {content_type or '(none)'}: expected {JSON}")
    return parse_generate_fields(load_object(body, "the body"), headers)


def parse_viseme_request(body: bytes | str, content_type: str | None, _headers: Mapping[str, str]) -> VisemeRequest:
    """Parse the body of `POST /v1/visemes`: JSON, or the audio itself.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    media_type = media_type_of(content_type)
    if media_type == JSON:
        return parse_viseme_fields(load_object(body, "the body"))
    if not media_type.startswith(SPEECH_TYPES):
        raise UnsupportedContentType(
            f"content type {content_type or '(none)'}: expected {JSON}, multipart/form-data, or the audio itself as "
            "audio/*, video/* or application/octet-stream"
        )
    if not body:
        raise InvalidRequest("the body is empty; expected audio")
    return VisemeRequest(body.encode("latin-1") if isinstance(body, str) else body)


def task_of(headers: Mapping[str, str]) -> object:
    """Return the task named in the options header; lip reading if the header contains foreign attributes."""
    return header_fields(headers).get("task") if SYNC in headers.get(OPTIONS_HEADER, "") else READ


def media_type_of(content_type: str | None) -> str:
    """Return the media type without its parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def headers_of(context: Any) -> dict[str, str]:
    """Return the request headers that a hosting toolkit's context carries, names in lower case; none without one."""
    get: Callable[[int], Mapping[str, str] | None] | None = getattr(context, "get_all_request_header", None)
    if get is None:
        return {}
    return {str(name).lower(): str(value) for name, value in (get(0) or {}).items()}
