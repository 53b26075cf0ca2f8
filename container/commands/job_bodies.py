"""The requests of jobs: what `viseme jobs submit` sends for its files, URLs and options."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from inference.errors import InvalidRequest, MediaNotFound
from inference.locked_folders import locked_folder

JSON = "application/json"
RAW = "application/octet-stream"
OPTIONS_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
ENCODED_BYTES = 3 << 20  # a multiple of 3, so that the parts in base64 can be joined
Fields = dict[str, Any]


@dataclass(frozen=True)
class JobBody:
    """The body of a submission, on disk, and its headers."""

    path: Path
    headers: dict[str, str]


@dataclass(frozen=True)
class JobInput:
    """A file, a URL, or s3://bucket/key, as it is named on the command line."""

    name: str

    @property
    def scheme(self) -> str:
        scheme = urlsplit(self.name).scheme
        return scheme if scheme in ("http", "https", "s3") else ""

    @property
    def path(self) -> Path:
        """The path of a file. Raises: MediaNotFound."""
        path = Path(self.name)
        if not path.is_file():
            raise MediaNotFound(f"{path}: no such file; expected a file, http(s)://... or s3://bucket/key")
        return path

    def fields(self, url_name: str, key_name: str) -> Fields:
        """Return the fields by which a body refers to what is not on this machine. Raises: InvalidRequest."""
        if self.scheme != "s3":
            return {url_name: self.name}
        parts = urlsplit(self.name)
        if not parts.netloc or not parts.path.strip("/"):
            raise InvalidRequest(f"{self.name}: expected s3://bucket/key")
        return {"s3_bucket": parts.netloc, key_name: parts.path.removeprefix("/")}


@contextmanager
def read_body(video: JobInput, options: Fields, headers: dict[str, str]) -> Iterator[JobBody]:
    """Yield the request that reads a video: the file itself, or JSON that refers to it.

    Raises: MediaNotFound, InvalidRequest.
    """
    if not video.scheme and "phrases" in options:  # too long for a header
        with json_body(options, {"video": video.path}, headers) as body:
            yield body
        return
    if not video.scheme:
        kind = mimetypes.guess_type(video.name)[0] or RAW
        named = {OPTIONS_HEADER: json.dumps(options)} if options else {}
        yield JobBody(video.path, headers | named | {"Content-Type": kind if kind.startswith("video/") else RAW})
        return
    with json_body(options | video.fields("video_url", "s3_video_key"), {}, headers) as body:
        yield body


@contextmanager
def sync_body(face: JobInput, audio: JobInput, options: Fields, headers: dict[str, str]) -> Iterator[JobBody]:
    """Yield the request that syncs a face to audio. Raises: MediaNotFound, InvalidRequest."""
    fields, files = {"task": "lipsync"} | options, dict[str, Path]()
    named = (face, "face", "face_url", "s3_video_key"), (audio, "audio", "audio_url", "s3_audio_key")
    for source, name, url_name, key_name in named:
        if not source.scheme:
            files[name] = source.path
            continue
        found = source.fields(url_name, key_name)
        if fields.get("s3_bucket", bucket := found.get("s3_bucket")) != bucket and bucket is not None:
            raise InvalidRequest(f"{source.name}: expected a file in the bucket {fields['s3_bucket']}, as the face")
        fields |= found
    with json_body(fields, files, headers) as body:
        yield body


@contextmanager
def json_body(fields: Fields, files: dict[str, Path], headers: dict[str, str]) -> Iterator[JobBody]:
    """Yield a JSON object with these fields, and files in base64, which are never in memory as a whole."""
    with locked_folder("viseme-submit-") as folder:
        path = folder / "body.json"
        with path.open("wb") as body:
            body.write(json.dumps(fields).encode().removesuffix(b"}"))
            separator = b", " if fields else b""
            for name, source in files.items():
                body.write(separator + json.dumps(name).encode() + b': "')
                with source.open("rb") as file:
                    write_base64(file, body)
                body.write(b'"')
                separator = b", "
            body.write(b"}")
        yield JobBody(path, headers | {"Content-Type": JSON})


def write_base64(source: IO[bytes], target: IO[bytes]) -> None:
    while part := source.read(ENCODED_BYTES):
        target.write(base64.b64encode(part))
