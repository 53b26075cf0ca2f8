"""The body of `POST /v1/visemes`, which may be a form as well."""

from __future__ import annotations

from collections.abc import Mapping

from container.worker.openai_transcriptions import parse_form
from inference.errors import InvalidRequest
from inference.requests import VisemeRequest, parse_viseme_request, shorten

FORM_TYPE = "multipart/form-data"


def parse_viseme_body(body: bytes, content_type: str, headers: Mapping[str, str]) -> VisemeRequest:
    """Parse a form with the audio in "file", JSON, or the audio itself.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    if not content_type.lower().startswith(FORM_TYPE):
        return parse_viseme_request(body, content_type, headers)
    form = parse_form(body, content_type)
    if form.fields:
        raise InvalidRequest(f"{shorten(next(iter(form.fields)))}: no such field; known: file")
    if not form.file:
        raise InvalidRequest('"file": expected audio in the form')
    return VisemeRequest(form.file)
