from __future__ import annotations

import base64
import json

import pytest

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.media_types import JSON, AcceptHeader
from inference.requests import S3Object, VisemeRequest, parse_job_request, parse_request, parse_viseme_request

INLINE = base64.b64encode(b"RIFF").decode()


def test_the_audio_is_inline_in_s3_or_the_body():
    for body, source in (
        ({"audio": INLINE}, b"RIFF"),
        ({"s3_bucket": "clips", "s3_audio_key": "a.wav"}, S3Object("clips", "a.wav")),
    ):
        assert parse_viseme_request(json.dumps(body), JSON, {}) == VisemeRequest(source)
        assert parse_request(json.dumps(body | {"task": "visemes"}), JSON, {}) == VisemeRequest(source)
    for media_type in ("audio/wav", "video/mp4", "application/octet-stream"):
        assert parse_viseme_request(b"RIFF", media_type, {}) == VisemeRequest(b"RIFF")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "expected either"),
        ({"audio": INLINE, "s3_bucket": "clips"}, "expected either"),
        ({"s3_bucket": "clips"}, "go together"),
        ({"audio": "%"}, "not base64"),
        ({"audio": INLINE, "task": "lipread"}, '"task"'),
        ({"audio_url": "https://a.example/a.wav"}, '"audio_url": no such field'),
    ],
)
def test_wrong_fields_are_named(body: dict, message: str):
    with pytest.raises(InvalidRequest, match=message):
        parse_viseme_request(json.dumps(body), JSON, {})


def test_other_content_is_refused():
    with pytest.raises(UnsupportedContentType, match="text/html"):
        parse_viseme_request(b"x", "text/html", {})
    with pytest.raises(InvalidRequest, match="empty"):
        parse_viseme_request(b"", "audio/wav", {})
    with pytest.raises(UnsupportedContentType):
        VisemeRequest(b"x").choose_type(AcceptHeader.parse("video/mp4"))


def test_visemes_are_no_job():
    with pytest.raises(InvalidRequest, match="jobs run lipread or lipsync"):
        parse_job_request(json.dumps({"task": "visemes", "audio": INLINE}), JSON, {})
