from __future__ import annotations

import json

import pytest

from container.speech.requests import MAX_BODY_BYTES, MAX_CHARACTERS, SpeechRequest, parse_speech_request
from inference.errors import InvalidRequest, UnsupportedContentType

JSON = "application/json"


def parse(**fields: object) -> SpeechRequest:
    return parse_speech_request(json.dumps(fields).encode(), JSON)


def test_a_request_has_defaults():
    assert parse(text="Hello.\nYou") == SpeechRequest(text="Hello.\nYou", language="en", rate=175)


def test_the_longest_text_fits_into_a_body():
    text = "ä" * MAX_CHARACTERS
    assert len(json.dumps({"text": text})) < MAX_BODY_BYTES
    assert parse(text=text).text == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, '"text": .*required'),
        ({"text": ""}, '"text".*at least 1 character'),
        ({"text": "a" * (MAX_CHARACTERS + 1)}, f'"text".*at most {MAX_CHARACTERS} characters'),
        ({"text": 7}, '"text": found 7'),
        ({"text": "... !"}, "no letter and no digit"),
        ({"text": "a\x0150S b"}, "control characters"),  # espeak-ng's embedded commands start with 0x01
        ({"text": "a\x00b"}, "control characters"),
        ({"text": "a \ud800"}, '"text".*unicode'),
        ({"text": "a", "language": "--compile=en"}, '"language": found .--compile=en'),
        ({"text": "a", "language": "../../voices/x"}, '"language"'),
        ({"text": "a", "rate": 79}, '"rate": found 79.*80'),
        ({"text": "a", "rate": 451}, '"rate": found 451.*450'),
        ({"text": "a", "rate": "175"}, '"rate"'),
        ({"text": "a", "voice": "../af_heart"}, '"voice": found'),
        ({"text": "a", "pitch": 1}, '"pitch": no such field; known: text, language, rate, voice'),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, object], message: str):
    with pytest.raises(InvalidRequest, match=message):
        parse(**fields)


def test_other_bodies_are_refused():
    with pytest.raises(UnsupportedContentType, match="application/json"):
        parse_speech_request(b"text=a", "application/x-www-form-urlencoded")
    with pytest.raises(InvalidRequest, match="not JSON"):
        parse_speech_request(b"text", JSON)
