from __future__ import annotations

import pytest

from container.worker.openai_transcriptions import MAX_PARTS, check_form, parse_form
from inference.errors import InvalidRequest, UnsupportedContentType

TYPE = "multipart/form-data; boundary=b"


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """Encode parts, each (name, file name or "", content), as a multipart form."""
    body = b""
    for name, file_name, contents in parts:
        extra = f'; filename="{file_name}"' if file_name else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + contents + b"\r\n"
    return body + b"--b--\r\n"


def test_files_and_fields_are_separated():
    parsed = parse_form(
        form(("file", "a.mp4", b"film\r\n--bb"), ("model", "", b"x"), ("timestamp_granularities[]", "", b"word")), TYPE
    )
    assert parsed.file == b"film\r\n--bb"
    assert parsed.one("model", "") == "x"
    assert parsed.many("timestamp_granularities") == ["word"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((("model", "", b"x"),), '"file": expected a video'),
        ((("file", "a", b"f"), ("response_format", "", b"doc")), "expected one of json"),
        ((("file", "a", b"f"), ("timestamp_granularities[]", "", b"hour")), "word or segment"),
        ((("file", "a", b"f"), ("stream", "", b"true")), "not supported"),
        ((("file", "a", b"f"), ("colour", "", b"red")), "'colour': no such field"),
        ((("file", "a", b"f"), ("response_format", "", b"x" * 1_000_000)), "expected one of json"),
    ],
)
def test_a_wrong_form_is_named(parts: tuple, words: str):
    parsed = parse_form(form(*parts), TYPE)
    with pytest.raises(InvalidRequest, match=words) as caught:
        check_form(parsed, parsed.one("response_format", "json"), parsed.many("timestamp_granularities"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"x", "application/json", UnsupportedContentType),
        (b"x", "multipart/form-data", UnsupportedContentType),
        (b"garbage", TYPE, InvalidRequest),
        (form(("file", "a", b"f")), f"multipart/form-data; boundary={'b' * 5000}", InvalidRequest),
        (form(*(("model", "", b"x"),) * (MAX_PARTS + 1)), TYPE, InvalidRequest),
    ],
)
def test_a_malformed_form_is_rejected(body: bytes, content_type: str, error: type[Exception]):
    with pytest.raises(error):
        parse_form(body, content_type)
