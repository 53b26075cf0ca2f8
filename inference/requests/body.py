"""JSON of requests: bounded before it is parsed, validated field by field."""

from __future__ import annotations

import base64
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
# Strings, skipped whole (an unterminated one up to the end, so nothing is scanned twice), and the structure between.
# An item of a list of face boxes is one token: four numbers or null, and the comma after it.
STRUCTURE = re.compile(
    rb'"(?>[^"\\]*(?:\\.[^"\\]*)*)"?'
    rb"|(?P<box>(?:\[[-+.0-9eE\s]{1,32}(?:,[-+.0-9eE\s]{1,32}){3}\]|null)\s*,)"
    rb"|[\[\]{},]",
    re.DOTALL,
)
MAX_TOKENS = 2000  # strings, brackets and commas of one body; a request has a few, and a dozen for each segment
MAX_BOX_TOKENS = 250_000  # boxes of faces, one for each frame: over two hours at 30 a second
DATA_SCHEME = "data:"
MAX_DATA_HEAD = 1000  # characters of a `data:` URI before its content
URL_ALPHABET = bytes.maketrans(b"-_", b"+/")  # RFC 4648 section 5
MAX_PADDING = 2  # characters
ASCII_WHITESPACE = b" \t\r\n\v\f"
GZIP = b"\x1f\x8b"
MAX_DEPTH = 32  # levels of nested JSON; a request has two
Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class S3Object:
    """An S3 object to read media from.

    version_id: of a bucket that keeps versions; None reads the current one. etag: that it must have; None if any.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None


@dataclass(frozen=True)
class UrlObject:
    """Media at an http or https URL; only durable jobs may name one."""

    url: str

    @classmethod
    def parse(cls, url: str, label: str) -> UrlObject:
        """Check a URL, but not its address, which may change until it is fetched. Raises: InvalidRequest."""
        from inference.media.outbound import UrlRules

        try:
            UrlRules().check(url)
        except InvalidRequest as err:
            raise InvalidRequest(f'"{label}": {err}') from err
        return cls(url)


MediaSource = S3Object | UrlObject | bytes  # bytes: the encoded media themselves


def parse_number(value: object) -> object:
    """Convert decimal text to an int: headers and forms carry numbers as text. Return other values unchanged."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def load_object(text: bytes | str, label: str) -> dict[str, Any]:
    """Parse a JSON object of bounded size and depth.

    label: what the text is, for messages.
    Raises: InvalidRequest.
    """
    check_structure(text, label)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f"{label}: not JSON ({err})") from err
    if not isinstance(value, dict):
        raise InvalidRequest(f"{label}: a JSON {type(value).__name__}; expected an object")
    return value


def header_fields(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of X-Amzn-SageMaker-Custom-Attributes if it is a JSON object; else none."""
    text = headers.get(OPTIONS_HEADER, "").strip()
    if not text.startswith("{"):
        return {}  # a trace id or the like: echoed, not interpreted
    return load_object(text, OPTIONS_HEADER)


def check_structure(text: bytes | str, label: str) -> None:
    """Count brackets and commas before parsing: each costs a hundred times its size once it is an object.

    Boxes of faces are counted apart, as there may be one for each frame of a video.
    Raises: InvalidRequest if there are too many, they are nested too deeply, or the text is compressed.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if raw.startswith(GZIP):
        raise InvalidRequest(f"{label}: compressed with gzip; expected JSON, not compressed")
    # Counted inside strings, too, these are upper bounds; they spare a long base64 string the slower scan.
    n_opening = raw.count(b"[") + raw.count(b"{")
    if n_opening <= MAX_DEPTH and 2 * n_opening + raw.count(b",") + raw.count(b'"') <= MAX_TOKENS:
        return
    depth = n_boxes = 0
    for i, match in enumerate(STRUCTURE.finditer(raw)):
        if match.lastgroup is not None:
            n_boxes += 1
            if n_boxes > MAX_BOX_TOKENS:
                raise InvalidRequest(f"{label}: JSON with over {MAX_BOX_TOKENS} boxes or nulls")
            continue
        token = match.group()[:1]
        depth += (token in b"[{") - (token in b"]}")
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{label}: JSON nested deeper than {MAX_DEPTH} levels")
        if i - n_boxes > MAX_TOKENS:
            raise InvalidRequest(f"{label}: JSON with over {MAX_TOKENS} elements; a request has a few")


def validate(model: type[Fields], fields: dict[str, Any]) -> Fields:
    """Build a model from fields. Raises: InvalidRequest naming the first wrong one."""
    try:
        return model.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        label = ".".join(str(part) for part in first["loc"][:1]) or "the body"
        shown = shorten(first.get("input"))
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(f'"{label}": no such field; known: {", ".join(model.model_fields)}') from err
        raise InvalidRequest(f'"{label}": found {shown}; {first["msg"]}') from err


def shorten(value: object) -> str:
    """Return a short text of any value, for a message."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 60
    return brief.repr(value)


def decode_base64(text: str, label: str) -> bytes:
    """Decode base64, also in lines, with the alphabet of URLs, without padding, or as a `data:` URI.

    Raises: InvalidRequest if it is not base64, or is empty.
    """
    encoded = text if text[: len(DATA_SCHEME)].lower() != DATA_SCHEME else strip_data_head(text, label)
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError:
        decoded = decode_variant(encoded, label)
    if not decoded:
        raise InvalidRequest(f'"{label}": is empty')
    return decoded


def strip_data_head(text: str, label: str) -> str:
    """Return the base64 of a `data:` URI (RFC 2397). Raises: InvalidRequest if its content is not in base64."""
    head, comma, encoded = text[:MAX_DATA_HEAD].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidRequest(f'"{label}": found {shorten(head)}; expected data:TYPE;base64, and base64 after the comma')
    return encoded + text[MAX_DATA_HEAD:]


def decode_variant(text: str, label: str) -> bytes:
    """Decode base64 in lines (RFC 2045), in the alphabet of URLs or without padding. Raises: InvalidRequest."""
    joined = text.encode("ascii", "replace").translate(URL_ALPHABET, ASCII_WHITESPACE)
    unpadded = joined.rstrip(b"=")
    if (n_padding := len(joined) - len(unpadded)) > MAX_PADDING:
        raise InvalidRequest(f'"{label}": not base64 (found {n_padding} padding characters)')
    try:
        return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)
    except ValueError as err:  # binascii.Error, too
        raise InvalidRequest(f'"{label}": not base64 ({err})') from err
