"""Lets somebody upload one film, without an AWS account: a presigned POST, bounded in size, type, place and time."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.config import Config

Event = dict[str, Any]

FILM_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
FILM_SUFFIXES |= {".flv", ".wmv", ".asf", ".ogv", ".mxf", ".3gp", ".gif"}
FILM_TYPE = re.compile(r"(video|image)/[a-zA-Z0-9.+-]{1,64}")
MAX_NAME_BYTES = 255  # of most file systems; an S3 key holds 1024
MAX_BYTES = 1024**3  # SageMaker's bound on an asynchronous input, and Viseme's own
EXPIRES_S = 900


class BadRequest(Exception):
    """The caller's mistake, in words for the caller."""


@dataclass(frozen=True)
class Settings:
    """How this function is deployed."""

    bucket: str
    prefix: str
    max_bytes: int
    expires_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises: ValueError naming the variable that is missing or wrong."""
        if not env.get("BUCKET_NAME"):
            raise ValueError("BUCKET_NAME is not set")
        return cls(
            bucket=env["BUCKET_NAME"],
            prefix=(env.get("INPUT_PREFIX") or "uploads/").strip("/") + "/",
            max_bytes=positive("MAX_BYTES", env.get("MAX_BYTES") or str(MAX_BYTES)),
            expires_s=positive("EXPIRES_S", env.get("EXPIRES_S") or str(EXPIRES_S)),
        )


def handler(event: Event, _context: object) -> Event:
    """A form to post one film with.

    event: {"filename", "content_type"}, called directly; or the same as the JSON body of an HTTP request (function
        URL, API Gateway), which is answered in HTTP's terms.
    Returns: {"url", "fields", "key", "max_bytes", "expires_s"}; post the fields, then the file as `file`.
    Raises: BadRequest where it is called directly and the request is wrong.
    """
    settings = Settings.from_env(os.environ)
    if "requestContext" not in event:
        return make_form(event, settings)
    try:
        return as_http(200, make_form(body_of(event), settings))
    except BadRequest as err:
        return as_http(400, {"status": "error", "error": {"code": "invalid_request", "message": str(err)}})


def make_form(request: Event, settings: Settings) -> Event:
    """The presigned POST for one film. Each gets a folder of its own, so nobody writes over another's."""
    name = check_name(request.get("filename"))
    content_type = check_type(request.get("content_type", "video/mp4"))
    key = f"{settings.prefix}{uuid.uuid4()}/{name}"
    # Signature 4, and the bucket's own host name: posts to a new bucket's global address are redirected, and fail.
    s3 = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))
    form: Event = s3.generate_presigned_post(
        settings.bucket,
        key,
        Fields={"Content-Type": content_type},
        Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, settings.max_bytes]],
        ExpiresIn=settings.expires_s,
    )
    return form | {"key": key, "max_bytes": settings.max_bytes, "expires_s": settings.expires_s}


def check_name(name: object) -> str:
    """The file's own name, without the folders it came from. Raises: BadRequest."""
    if not isinstance(name, str):
        raise BadRequest('"filename": expected the name of a film')
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    if PurePosixPath(last).suffix.lower() not in FILM_SUFFIXES:
        raise BadRequest(
            f'"filename": found {last[:80]!r}, expected one that ends in {" ".join(sorted(FILM_SUFFIXES))}'
        )
    if len(last.encode(errors="replace")) > MAX_NAME_BYTES or not last.isprintable() or "$" in last:
        # "$" because S3 puts the uploader's file name in for ${filename}, and the key would be another.
        raise BadRequest(f'"filename": expected at most {MAX_NAME_BYTES} printable bytes without "$"')
    return last


def check_type(content_type: object) -> str:
    """Raises: BadRequest."""
    if not isinstance(content_type, str) or not FILM_TYPE.fullmatch(content_type):
        raise BadRequest(f'"content_type": found {str(content_type)[:80]!r}, expected video/...')
    return content_type


def body_of(event: Event) -> Event:
    """The JSON object in an HTTP request. Raises: BadRequest."""
    body = event.get("body") or "{}"
    try:
        found = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except (binascii.Error, ValueError, RecursionError) as err:
        raise BadRequest(f"the body is not JSON ({err})") from err
    if not isinstance(found, dict):
        raise BadRequest("the body is not a JSON object")
    return found


def as_http(status: int, body: Event) -> Event:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}


def positive(name: str, text: str) -> int:
    """Raises: ValueError naming the variable."""
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name}={text}: expected a number above 0")
    return int(text)
