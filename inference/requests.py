"""What callers may ask over the wire, validated; the answers' forms."""

from __future__ import annotations

import base64
import binascii
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.lip_reading import ReadOptions
from inference.lip_reading.options import FPS, MOST_BEST, N_BEST, Decoder

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
VTT, SRT = "text/vtt", "application/x-subrip"
READ_ANSWERS = (JSON, NDJSON, TEXT, VTT, SRT)
OPTIONS_HEADER = "x-amzn-sagemaker-custom-attributes"
RAW_TYPES = ("video/", "image/", "application/octet-stream")
# Strings, passed over whole (one that does not end, to the end: never looked at twice), and what is between them.
STRUCTURE = re.compile(rb'"(?>[^"\\]*(?:\\.[^"\\]*)*)"?|[\[\]{},]', re.DOTALL)
MAX_TOKENS = 1000
Form = TypeVar("Form", bound=BaseModel)
MAX_DEPTH = 32  # of nested JSON; a request of ours has two levels


@dataclass(frozen=True)
class S3Object:
    """An object that the media are to be fetched from."""

    bucket: str
    key: str


@dataclass(frozen=True)
class ReadRequest:
    """Lip reading, asked for: where the video is, and how to read it."""

    source: S3Object | bytes
    options: ReadOptions


def parse_number(found: object) -> object:
    """Numbers come as text from headers and forms."""
    return int(found) if isinstance(found, str) and found.isdecimal() else found


class ReadFields(BaseModel):
    """The options of lip reading, by their names on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["lipread"] = "lipread"
    fps: Annotated[float, Field(ge=FPS, le=FPS)] = FPS  # of the networks' training; the video itself may have any rate
    face: Annotated[Literal["largest"] | int, BeforeValidator(parse_number)] = "largest"
    decoder: Decoder = "auto"
    nbest: Annotated[int, Field(ge=1, le=MOST_BEST), BeforeValidator(parse_number)] = N_BEST
    exact: bool = False

    def options(self) -> ReadOptions:
        return ReadOptions(face=self.face, decoder=self.decoder, n_best=self.nbest, exact=self.exact)


class ReadBody(ReadFields):
    """The JSON body of a lip reading request: S3, or inline."""

    s3_bucket: Annotated[str, Field(min_length=3, max_length=63)] | None = None
    s3_video_key: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    video: str | None = None

    def source(self) -> S3Object | bytes:
        by_s3 = self.s3_bucket is not None or self.s3_video_key is not None
        if by_s3 == (self.video is not None):
            raise InvalidRequest('expected either "s3_bucket" and "s3_video_key", or "video" in base64')
        if self.video is not None:
            return decode_base64(self.video)
        if self.s3_bucket is None or self.s3_video_key is None:
            raise InvalidRequest('"s3_bucket" and "s3_video_key" go together')
        return S3Object(self.s3_bucket, self.s3_video_key)


def parse_request(body: bytes | str, content_type: str | None, headers: Mapping[str, str]) -> ReadRequest:
    """A request out of a body: JSON, or raw media with their options in a header.

    Raises: InvalidRequest naming the field, UnsupportedContentType.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == JSON:
        fields = validate(ReadBody, load_object(body, "the body"))
        return ReadRequest(fields.source(), fields.options())
    if media_type.startswith(RAW_TYPES):
        if not body:
            raise InvalidRequest("the body is empty; expected a video")
        raw = body.encode("latin-1") if isinstance(body, str) else body
        return ReadRequest(raw, options_of(headers))
    raise UnsupportedContentType(
        f"content type {content_type or '(none)'}: expected {JSON}, or the video itself as video/* "
        f"or application/octet-stream"
    )


def options_of(headers: Mapping[str, str]) -> ReadOptions:
    """Options from X-Amzn-SageMaker-Custom-Attributes, where it holds a JSON object."""
    text = headers.get(OPTIONS_HEADER, "").strip()
    if not text.startswith("{"):
        return ReadFields().options()  # a trace id or the like: echoed, and none of our business
    return validate(ReadFields, load_object(text, OPTIONS_HEADER)).options()


def load_object(text: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object, of bounded depth."""
    check_structure(text, where)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f"{where}: not JSON ({err})") from err
    if not isinstance(found, dict):
        raise InvalidRequest(f"{where}: a JSON {type(found).__name__}; expected an object")
    return found


def check_structure(text: bytes | str, where: str) -> None:
    """Look at brackets and commas before anything is built: a few bytes each can cost a hundred times as many.

    Raises: InvalidRequest.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    depth = 0
    for i, match in enumerate(STRUCTURE.finditer(raw)):
        token = match.group()[:1]
        depth += (token in b"[{") - (token in b"]}")
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{where}: JSON nested deeper than {MAX_DEPTH} levels")
        if i > MAX_TOKENS:
            raise InvalidRequest(f"{where}: JSON of over {MAX_TOKENS} parts; a request has a few")


def validate(form: type[Form], fields: dict[str, Any]) -> Form:
    """The fields as a value. Raises: InvalidRequest naming the first wrong one."""
    try:
        return form.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:1]) or "the body"
        shown = shorten(first.get("input"))
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(f'"{where}": no such field; known: {", ".join(form.model_fields)}') from err
        raise InvalidRequest(f'"{where}": found {shown}; {first["msg"]}') from err


def shorten(value: object) -> str:
    """A value for a message: never large, whatever it is."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 60
    return brief.repr(value)


def decode_base64(text: str) -> bytes:
    """Raises: InvalidRequest where it is none, or nothing."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InvalidRequest(f'"video": not base64 ({err})') from err
    if not found:
        raise InvalidRequest('"video": is empty')
    return found


def choose_answer(accept: str | None) -> str:
    """The first form of the Accept header that we speak; JSON where it names none.

    Raises: UnsupportedContentType where it asks only for others.
    """
    wanted = [part.partition(";")[0].strip().lower() for part in (accept or "").split(",") if part.strip()]
    for one in wanted:
        if one in READ_ANSWERS:
            return one
        if one in ("*/*", "application/*"):
            return JSON
        if one == "text/*":
            return TEXT
    if not wanted:
        return JSON
    raise UnsupportedContentType(f"accept {accept}: expected one of {', '.join(READ_ANSWERS)}")
