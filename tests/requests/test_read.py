from __future__ import annotations

import base64
import gzip
import json

import pytest

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.lip_reading import ReadOptions
from inference.lip_reading.options import MAX_PHRASES
from inference.media_types import READ_TYPES, AcceptHeader
from inference.requests import JSON, OPTIONS_HEADER, ReadRequest, S3Object, UrlObject, parse_job_request, parse_request

INLINE = base64.b64encode(b"film").decode()


def parse(fields: object, headers: dict[str, str] | None = None) -> ReadRequest:
    found = parse_request(json.dumps(fields).encode(), JSON, headers or {})
    assert isinstance(found, ReadRequest)
    return found


def test_the_seeds_own_body():
    request = parse({"s3_bucket": "clips", "s3_video_key": "uploads/a b.mpg", "fps": 25})
    assert request == ReadRequest(S3Object("clips", "uploads/a b.mpg"), ReadOptions())


def test_a_version_can_be_named():
    request = parse({"s3_bucket": "clips", "s3_video_key": "a.mpg", "s3_version_id": "v1", "s3_etag": "e1"})
    assert request.source == S3Object("clips", "a.mpg", "v1", "e1")
    for name in ("s3_version_id", "s3_etag"):
        with pytest.raises(InvalidRequest, match='expected "s3_video_key"'):
            parse({"video": INLINE, name: "v1"})


def test_inline_base64_with_options():
    options = {"face": 1, "decoder": "greedy", "nbest": 3, "exact": True, "mouths": True}
    request = parse({"task": "lipread", "video": INLINE} | options)
    assert request == ReadRequest(b"film", ReadOptions(face=1, decoder="greedy", n_best=3, exact=True, mouths=True))


def test_as_many_phrases_as_are_allowed():
    phrases = tuple(f"{a}{b} c" for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")[
        :MAX_PHRASES
    ]
    options = parse({"video": INLINE, "phrases": phrases}).options
    assert options.phrases == tuple(phrase.upper() for phrase in phrases)


@pytest.mark.parametrize(
    "content_type", ["video/mp4", "VIDEO/mpeg; codecs=x", "application/octet-stream", "video/x-anything"]
)
def test_raw_media_with_options_in_the_header(content_type: str):
    request = parse_request(b"film", content_type, {OPTIONS_HEADER: '{"face": 2, "fps": 25, "nbest": "7"}'})
    assert request == ReadRequest(b"film", ReadOptions(face=2, n_best=7))


def test_foreign_custom_attributes_are_ignored():
    assert parse_request(b"film", "video/mp4", {OPTIONS_HEADER: "trace=17"}).options == ReadOptions()
    assert parse({"video": INLINE}, {OPTIONS_HEADER: "{not ours"}).options == ReadOptions()


def test_a_body_decoded_by_a_toolkit():
    assert parse_request(json.dumps({"video": INLINE}), "application/json; charset=utf-8", {}).source == b"film"


def test_only_jobs_name_a_url():
    body = json.dumps({"video_url": "https://media.example/a.mp4", "nbest": 3})
    request = parse_job_request(body, "application/json", {})
    assert request == ReadRequest(UrlObject("https://media.example/a.mp4"), ReadOptions(n_best=3))
    with pytest.raises(InvalidRequest, match='"video_url": only jobs fetch URLs; submit this to POST /v1/jobs'):
        parse_request(body, "application/json", {})


WRONG: dict[str, tuple[object, str]] = {
    "nothing": ({}, "expected either"),
    "both": ({"video": INLINE, "s3_bucket": "abc", "s3_video_key": "k"}, "expected either"),
    "a URL and S3": ({"video_url": "https://a.example", "s3_bucket": "abc", "s3_video_key": "k"}, "expected either"),
    "not a URL": ({"video_url": "file:///etc/passwd"}, '"video_url": .*expected a URL with http or https'),
    "a password": ({"video_url": "http://me:secret@a.example/"}, '"video_url": a URL with a user name or password'),
    "half s3": ({"s3_bucket": "clips"}, "go together"),
    "not base64": ({"video": "###"}, "not base64"),
    "empty video": ({"video": ""}, "is empty"),
    "a number": ({"video": 7}, '"video": found 7'),
    "unknown field": ({"video": INLINE, "fsp": 25}, '"fsp": no such field; known: .*fps'),
    "another rate": ({"video": INLINE, "fps": 30}, '"fps": found 30'),
    "rate not a number": ({"video": INLINE, "fps": "fast"}, '"fps"'),
    "face": ({"video": INLINE, "face": "left"}, '"face"'),
    "negative face": ({"video": INLINE, "face": -1}, "face -1"),
    "decoder": ({"video": INLINE, "decoder": "beam"}, '"decoder"'),
    "no readings": ({"video": INLINE, "nbest": 0}, '"nbest": found 0'),
    "too many readings": ({"video": INLINE, "nbest": 101}, '"nbest": found 101'),
    "readings in words": ({"video": INLINE, "nbest": "all"}, "\"nbest\": found 'all'"),
    "too many phrases": ({"video": INLINE, "phrases": ["a"] * (MAX_PHRASES + 1)}, '"phrases"'),
    "a phrase with a digit": ({"video": INLINE, "phrases": ["call 911"]}, "'9' cannot be read from lips"),
    "phrases and a decoder": ({"video": INLINE, "phrases": ["a"], "decoder": "greedy"}, "expected none with phrases"),
    "task": ({"video": INLINE, "task": "juggle"}, "\"task\": found 'juggle'; expected lipread, lipsync or visemes"),
    "list": ([1], "a JSON list; expected an object"),
    "short bucket": ({"s3_bucket": "a", "s3_video_key": "k"}, '"s3_bucket"'),
    "long key": ({"s3_bucket": "abc", "s3_video_key": "k" * 2000}, '"s3_video_key"'),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_body_is_named(kind: str):
    fields, words = WRONG[kind]
    with pytest.raises(InvalidRequest, match=words) as caught:
        parse(fields)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"video": NaN, }', b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
def test_invalid_json_is_an_error(body: bytes):
    with pytest.raises(InvalidRequest, match="JSON"):
        parse_request(body, JSON, {})


def test_a_compressed_body_is_named():
    with pytest.raises(InvalidRequest, match="compressed with gzip; expected JSON"):
        parse_request(gzip.compress(b'{"video": "AAAA"}'), JSON, {})


@pytest.mark.parametrize("content_type", ["", "text/html", "multipart/form-data", "application/xml"])
def test_another_content_type_is_rejected(content_type: str):
    with pytest.raises(UnsupportedContentType, match="expected application/json"):
        parse_request(b"x", content_type, {})


@pytest.mark.parametrize("content_type", ["application/mp4", "video/webm;codecs=vp8", "APPLICATION/OCTET-STREAM"])
def test_a_raw_video_is_taken_by_its_content_type(content_type: str):
    assert parse_request(b"video", content_type, {}).source == b"video"


def test_an_empty_raw_body_is_rejected():
    with pytest.raises(InvalidRequest, match="body is empty"):
        parse_request(b"", "video/mp4", {})


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/vtt", "text/vtt"),
        ("application/x-subrip, */*;q=0.1", "application/x-subrip"),
        ("text/html, text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/plain;q=0.1, application/json", "application/json"),
        ("application/json; q=0.2, text/vtt;q=0.8", "text/vtt"),
        ("text/plain;charset=utf-8;q=0.5, text/vtt;Q=0.6", "text/vtt"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("*/*;q=0.5, text/*;q=0.1, text/vtt", "text/vtt"),
        ("*/*, application/*;q=0", "text/plain"),
        ("text/plain;q=much, text/vtt;q=7", "text/plain"),
        ("text/html," * 60 + "text/vtt" + ",text/plain" * 1000, "text/vtt"),
    ],
)
def test_the_type_of_the_highest_quality_is_chosen(accept: str | None, media_type: str):
    assert AcceptHeader.parse(accept).choose(READ_TYPES) == media_type


@pytest.mark.parametrize("accept", ["image/png", "*/*;q=0", "application/json;q=0.000", ", application/mp4"])
def test_no_supported_type_is_an_error(accept: str):
    with pytest.raises(UnsupportedContentType, match="expected one of application/json"):
        AcceptHeader.parse(accept).choose(READ_TYPES)


def test_brackets_inside_strings_are_not_structure():
    request = parse({"s3_bucket": "clips", "s3_video_key": "[" * 40 + '"\\{{,,' + "," * 300})
    assert request.source == S3Object("clips", "[" * 40 + '"\\{{,,' + "," * 300)


@pytest.mark.parametrize(
    "body",
    [b"[" * 3_000_000, b"[" + b"[]," * 1_000_000 + b"1]", b'{"face": [' + b"1," * 1_000_000 + b"1]}"],
)
def test_large_structures_are_rejected_before_parsing(body: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.requests.body.json.loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(InvalidRequest, match="JSON"):
        parse_request(body, JSON, {})


@pytest.mark.parametrize("body", [b'{"a": "' + b"[" * 3_000_000, b'{"' + b'\\"' * 1_000_000, b'{"a' + b'"' * 999])
def test_unterminated_strings_are_scanned_once(body: bytes):
    with pytest.raises(InvalidRequest, match="JSON") as caught:
        parse_request(body, JSON, {})
    assert len(str(caught.value)) < 200


def test_a_missing_content_type_is_rejected():
    with pytest.raises(UnsupportedContentType, match=r"\(none\)"):
        parse_request(b"x", None, {})


def test_a_large_wrong_value_is_not_echoed():
    with pytest.raises(InvalidRequest) as caught:
        parse({"video": INLINE, "decoder": "x" * 1_000_000})
    assert len(str(caught.value)) < 300
