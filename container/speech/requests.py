"""Requests of `POST /v1/speech`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.media_types import JSON
from inference.requests.body import load_object, shorten, validate
from inference.requests.parse import media_type_of

MAX_CHARACTERS = 2000  # two minutes of speech at the default rate
MAX_BODY_BYTES = 64 << 10  # MAX_CHARACTERS of six bytes, as JSON may escape them, and the rest with room to spare
MIN_RATE, DEFAULT_RATE, MAX_RATE = 80, 175, 450  # words a minute: the range and the default of espeak-ng's -s
VOICE = r"^[a-z]{2}_[a-z]{2,20}$"
Language = Literal[
    "ar", "cs", "da", "de", "el", "en", "en-us", "es", "fi", "fr", "hi", "hu", "it", "ko", "nb", "nl", "pl", "pt",
    "pt-br", "ro", "ru", "sk", "sv", "tr", "uk", "vi", "zh",
]  # fmt: skip
# Characters that espeak-ng takes as commands (0x01 and what follows), or that are not text.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class SpeechRequest(BaseModel):
    """What to say. rate: in words a minute. voice: of a synthesiser that has several for a language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
    language: Language = "en"
    rate: Annotated[int, Field(strict=True, ge=MIN_RATE, le=MAX_RATE)] = DEFAULT_RATE
    voice: Annotated[str, Field(pattern=VOICE)] | None = None

    @field_validator("text")
    @classmethod
    def check_text(cls, text: str) -> str:
        """Check that the text can be spoken. Raises: ValueError, which pydantic reports with the field."""
        if CONTROL.search(text):
            raise ValueError("it contains control characters; expected text")
        if not any(character.isalnum() for character in text):
            raise ValueError("it contains no letter and no digit; expected words to speak")
        return text


def describe_options() -> dict[str, Any]:
    """Return what a request may contain, as JSON values."""
    return {
        "languages": list(get_args(Language)),
        "rate": {"min": MIN_RATE, "default": DEFAULT_RATE, "max": MAX_RATE},
        "max_characters": MAX_CHARACTERS,
    }


def parse_speech_request(body: bytes, content_type: str) -> SpeechRequest:
    """Parse the JSON body of a request. Raises: UnsupportedContentType; InvalidRequest naming the field."""
    if media_type_of(content_type) != JSON:
        raise UnsupportedContentType(f"content type {shorten(content_type)}: expected {JSON}")
    if len(body) > MAX_BODY_BYTES:
        raise InvalidRequest(f"the body has {len(body)} bytes; at most {MAX_BODY_BYTES} expected")
    return validate(SpeechRequest, load_object(body, "the body"))
