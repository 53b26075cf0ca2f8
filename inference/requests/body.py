"""What every request's JSON has in common: bounded before it is built, its fields named where they are wrong."""

from __future__ import annotations

import base64
import binascii
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from inference.errors import InvalidRequest

OPTIONS_HEADER = "x-amzn-sagemaker-custom-attributes"
Bucket = Annotated[str, Field(min_length=3, max_length=63)]
Key = Annotated[str, Field(min_length=1, max_length=1024)]
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


def parse_number(found: object) -> object:
    """Numbers come as text from headers and forms."""
    return int(found) if isinstance(found, str) and found.isdecimal() else found


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


def header_fields(headers: Mapping[str, str]) -> dict[str, Any]:
    """What X-Amzn-SageMaker-Custom-Attributes holds, where it is a JSON object."""
    text = headers.get(OPTIONS_HEADER, "").strip()
    if not text.startswith("{"):
        return {}  # a trace id or the like: echoed, and none of our business
    return load_object(text, OPTIONS_HEADER)


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


def decode_base64(text: str, where: str) -> bytes:
    """Raises: InvalidRequest where it is none, or nothing."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InvalidRequest(f'"{where}": not base64 ({err})') from err
    if not found:
        raise InvalidRequest(f'"{where}": is empty')
    return found
