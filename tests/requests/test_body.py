"""JSON of requests, bounded before it is parsed, and base64 as clients write it."""

from __future__ import annotations

import base64
import json

import pytest

from inference.errors import InvalidRequest
from inference.requests import JSON, parse_generate_request, parse_request
from inference.requests.body import MAX_BOX_TOKENS, check_structure, decode_base64, load_object

MEDIA = bytes(range(256)) * 2  # its base64 has every character of the alphabet, and is padded
PLAIN = base64.b64encode(MEDIA).decode()
VARIANTS = {
    "plain": PLAIN,
    "lines of 76, as base64 and Ruby write": base64.encodebytes(MEDIA).decode(),
    "lines of 76 with CRLF, as Java's MIME encoder": base64.encodebytes(MEDIA).decode().replace("\n", "\r\n"),
    "alphabet of URLs": base64.urlsafe_b64encode(MEDIA).decode(),
    "without padding": PLAIN.rstrip("="),
    "alphabet of URLs without padding": base64.urlsafe_b64encode(MEDIA).decode().rstrip("="),
    "data URI": "data:video/mp4;base64," + PLAIN,
    "data URI with parameters": "DATA:video/webm;codecs=vp8;base64," + PLAIN,
    "data URI without a type": "data:;base64," + PLAIN,
    "data URI in lines": "data:audio/wav;base64,\n" + base64.encodebytes(MEDIA).decode(),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_each_variant_is_decoded(variant: str):
    assert decode_base64(VARIANTS[variant], "video") == MEDIA


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_each_route_decodes_each_variant(variant: str):
    text = VARIANTS[variant]
    assert parse_request(json.dumps({"video": text}), JSON, {}).source == MEDIA
    request = parse_request(json.dumps({"task": "lipsync", "face": text, "audio": text}), JSON, {})
    assert (request.face, request.audio) == (MEDIA, MEDIA)
    request = parse_generate_request(json.dumps({"image": text, "audio": text}), JSON, {})
    assert (request.face, request.audio) == (MEDIA, MEDIA)


@pytest.mark.parametrize("n_bytes", range(1, 8))
def test_any_length_without_padding(n_bytes: int):
    assert decode_base64(base64.b64encode(MEDIA[:n_bytes]).decode().rstrip("="), "video") == MEDIA[:n_bytes]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("###", '"video": not base64'),
        ("AAAAA", '"video": not base64'),
        ("AA==AAAA", '"video": not base64'),
        ("AAA====", '"video": not base64 .*4 padding characters'),
        ("AAA\u00e9", '"video": not base64'),
        ("https://example.com/a.mp4", '"video": not base64'),
        ("data:text/plain,AAAA", "expected data:TYPE;base64,"),
        ("data:video/mp4;base64", "expected data:TYPE;base64,"),
        ("data:" + "x" * 2000 + ";base64,AAAA", "expected data:TYPE;base64,"),
        ("", "is empty"),
        ("data:video/mp4;base64,", "is empty"),
        (" \n", "is empty"),
    ],
)
def test_anything_else_is_rejected(text: str, words: str):
    with pytest.raises(InvalidRequest, match=words):
        decode_base64(text, "video")


MANY = "[" + "[]," * 2000 + "[]]"  # a list of lists, each of which takes many times its size in memory


@pytest.mark.parametrize("separators", [None, (",", ":"), (" , ", " : ")])
def test_a_box_for_each_frame_is_one_element(separators: tuple[str, str] | None):
    boxes = [[i, 2.5, -3, 1e-7] if i % 3 else None for i in range(5000)]
    text = json.dumps({"active_speaker": {"boxes": boxes}}, separators=separators)
    assert load_object(text, "the body")["active_speaker"]["boxes"] == boxes


def test_boxes_are_bounded():
    check_structure("[" + "null," * MAX_BOX_TOKENS + "null]", "the body")
    with pytest.raises(InvalidRequest, match="over 250000 boxes or nulls"):
        check_structure("[" + "[1,2,3,4]," * (MAX_BOX_TOKENS + 1) + "null]", "the body")


@pytest.mark.parametrize(
    "text",
    [
        MANY,
        '{"a": "\\null,", "b": ' + MANY + "}",  # a box in a string, whose escape must not hide the end of the string
        '{"a": "[1,2,3,4],", "b": ' + MANY + "}",
        "[" + "[1,2,3]," * 2000 + "0]",
        "[" + "[1,2,3,4,5]," * 2000 + "0]",
        "[" + '[1,2,3,"a"],' * 2000 + "0]",
        "[" + "[1,2,3,[4]]," * 2000 + "0]",
        "[" + "[1,2,3,4]" * 2000 + "0]",  # not JSON
    ],
)
def test_other_elements_are_few(text: str):
    with pytest.raises(InvalidRequest, match="over 2000 elements"):
        check_structure(text, "the body")


def test_json_is_nested_to_a_depth():
    with pytest.raises(InvalidRequest, match="deeper than 32 levels"):
        check_structure("[" * 33 + "[1,2,3,4]," + "]" * 33, "the body")
