"""From a body to a request: which job it asks for, and how."""

from __future__ import annotations

from collections.abc import Mapping

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.requests.answers import JSON
from inference.requests.body import OPTIONS_HEADER, header_fields, load_object, shorten
from inference.requests.read import ReadRequest, options_of, parse_read
from inference.requests.sync import SyncRequest, parse_generate, parse_sync

RAW_TYPES = ("video/", "image/", "application/octet-stream")
READ, SYNC = "lipread", "lipsync"
VOICES = {"audio", "s3_audio_key"}

Request = ReadRequest | SyncRequest


def parse_request(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> Request:
    """A request out of a body: JSON, or raw media with their options in a header.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    media_type = type_of(content_type)
    if media_type == JSON:
        fields = load_object(body, "the body")
        task = fields.get("task", task_of(headers))
        if task not in (READ, SYNC):
            raise InvalidRequest(f'"task": found {shorten(task)}; expected {READ} or {SYNC}')
        if task == SYNC:
            return parse_sync(fields, headers)
        if VOICES & set(fields):
            raise InvalidRequest(f'"task": {READ} takes no voice; expected "{SYNC}" where a face is to say one')
        return parse_read(fields)
    if media_type.startswith(RAW_TYPES):
        if task_of(headers) == SYNC:
            raise InvalidRequest(f'"task": {SYNC} takes a face and a voice; expected {JSON} with both')
        if not body:
            raise InvalidRequest("the body is empty; expected a video")
        raw = body.encode("latin-1") if isinstance(body, str) else body
        return ReadRequest(raw, options_of(headers))
    raise UnsupportedContentType(
        f"content type {content_type or '(none)'}: expected {JSON}, or the video itself as video/* "
        f"or application/octet-stream"
    )


def parse_generation(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> SyncRequest:
    """A request of `POST /api/generate`.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    if type_of(content_type) != JSON:
        raise UnsupportedContentType(f"content type {content_type or '(none)'}: expected {JSON}")
    return parse_generate(load_object(body, "the body"), headers)


def task_of(headers: Mapping[str, str]) -> object:
    """As the options in the headers say; of others' attributes there it is none of our business what they are."""
    return header_fields(headers).get("task") if SYNC in headers.get(OPTIONS_HEADER, "") else READ


def type_of(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
