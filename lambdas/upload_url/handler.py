"""Creates a presigned POST for one video, limited in size, type, key and time: the uploader needs no AWS account."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.config import Config

Event = dict[str, Any]

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
VIDEO_SUFFIXES |= {".flv", ".wmv", ".asf", ".ogv", ".mxf", ".3gp", ".gif"}
VIDEO_TYPE = re.compile(r"(video|image)/[a-zA-Z0-9.+-]{1,64}")
MAX_NAME_BYTES = 255  # limit of most file systems; an S3 key may have 1024
MAX_BYTES = 1024**3  # SageMaker's limit for an asynchronous input, and Viseme's own
EXPIRES_S = 900


class BadRequest(Exception):
    """The request is invalid; the message is meant for the caller."""


@dataclass(frozen=True)
class Settings:
    """The function's environment variables."""

    bucket: str
    prefix: str
    max_bytes: int
    expires_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. Raises: ValueError naming the variable that is missing or invalid."""
        if not env.get("BUCKET_NAME"):
            raise ValueError("BUCKET_NAME is not set")
        return cls(
            bucket=env["BUCKET_NAME"],
            prefix=(env.get("INPUT_PREFIX") or "uploads/").strip("/") + "/",
            max_bytes=parse_positive("MAX_BYTES", env.get("MAX_BYTES") or str(MAX_BYTES)),
            expires_s=parse_positive("EXPIRES_S", env.get("EXPIRES_S") or str(EXPIRES_S)),
        )


def handler(event: Event, _context: object) -> Event:
    """Create a form to upload one video with.

    event: {"filename", "content_type"} in a direct call; or the same as the JSON body of an HTTP request (function
        URL, API Gateway), which gets an HTTP response.
    Returns: {"url", "fields", "key", "max_bytes", "expires_s", "expires_at"}; post the fields, then the file as `file`.
        After expires_at (Unix time) S3 rejects the form with a 403: request a new one.
    Raises: BadRequest if a direct call is invalid.
    """
    settings = Settings.from_env(os.environ)
    if "requestContext" not in event:
        return make_form(event, settings)
    try:
        return http_response(200, make_form(read_body(event), settings))
    except BadRequest as err:
        return http_response(400, {"status": "error", "error": {"code": "invalid_request", "message": str(err)}})


def make_form(request: Event, settings: Settings) -> Event:
    """Create the presigned POST for one video. Each gets its own folder, so uploads cannot overwrite each other."""
    name = check_name(request.get("filename"))
    content_type = check_type(request.get("content_type", "video/mp4"))
    key = f"{settings.prefix}{uuid.uuid4()}/{name}"
    # Signature 4 and the bucket's own host name: a post to a new bucket's global address is redirected, and fails.
    s3 = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))
    form: Event = s3.generate_presigned_post(
        settings.bucket,
        key,
        Fields={"Content-Type": content_type},
        Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, settings.max_bytes]],
        ExpiresIn=settings.expires_s,
    )
    found = {"key": key, "max_bytes": settings.max_bytes, "expires_s": settings.expires_s}
    return form | found | {"expires_at": int(time.time()) + settings.expires_s}


def check_name(name: object) -> str:
    """Return the file name without its folders. Raises: BadRequest."""
    if not isinstance(name, str):
        raise BadRequest('"filename": expected the file name of a video')
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    if PurePosixPath(last).suffix.lower() not in VIDEO_SUFFIXES:
        raise BadRequest(
            f'"filename": found {last[:80]!r}, expected a name that ends in {" ".join(sorted(VIDEO_SUFFIXES))}'
        )
    if len(last.encode(errors="replace")) > MAX_NAME_BYTES or not last.isprintable() or "$" in last:
        # S3 replaces ${filename} with the uploader's file name, which would change the key.
        raise BadRequest(f'"filename": expected at most {MAX_NAME_BYTES} printable bytes without "$"')
    return last


def check_type(content_type: object) -> str:
    """Return the content type. Raises: BadRequest."""
    if not isinstance(content_type, str) or not VIDEO_TYPE.fullmatch(content_type):
        raise BadRequest(f'"content_type": found {str(content_type)[:80]!r}, expected video/...')
    return content_type


def read_body(event: Event) -> Event:
    """Return the JSON object in an HTTP request. Raises: BadRequest."""
    body = event.get("body") or "{}"
    try:
        found = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except (binascii.Error, ValueError, RecursionError) as err:
        raise BadRequest(f"the body is not JSON ({err})") from err
    if not isinstance(found, dict):
        raise BadRequest("the body is not a JSON object")
    return found


def http_response(status: int, body: Event) -> Event:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}


def parse_positive(name: str, text: str) -> int:
    """Return a number above 0. Raises: ValueError naming the variable."""
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name}={text}: expected a number above 0")
    return int(text)
