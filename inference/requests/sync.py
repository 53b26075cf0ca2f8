"""Lip sync, as it is asked for over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference.errors import InvalidRequest
from inference.lip_sync import PARITY, Pads, SyncOptions
from inference.lip_sync.options import Enhance, Loop, Reference
from inference.requests.answers import MP4, SYNC_ANSWERS
from inference.requests.body import Bucket, Key, S3Object, decode_base64, header_fields, parse_number, validate

MOST_MODELS = 8
SCHEME = "s3://"
Side = Annotated[int, Field(strict=True)]
ModelName = Annotated[str, Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class S3Folder:
    """Where films go. prefix: ends with a slash, or is empty."""

    bucket: str
    prefix: str


@dataclass(frozen=True)
class SyncRequest:
    """Lip sync, asked for.

    face: a film or a picture. models: by name; empty for the deployment's first. output: None where the films
    come back in the answer. is_presigned: whether the addresses of films in S3 open to whoever has them.
    """

    face: S3Object | bytes
    audio: S3Object | bytes
    options: SyncOptions
    models: tuple[str, ...] = ()
    output: S3Folder | None = None
    is_presigned: bool = False

    @property
    def answers(self) -> tuple[str, ...]:
        """The forms it can be answered in."""
        return SYNC_ANSWERS

    def check_answer(self, form: str) -> None:
        """Whether that form can hold what was asked for: before any work is done.

        Raises: InvalidRequest.
        """
        if form == MP4 and len(self.models) > 1:
            raise InvalidRequest(f'"models": {len(self.models)} films do not fit into one {MP4}; ask for one, or JSON')
        by_s3 = isinstance(self.face, S3Object) or isinstance(self.audio, S3Object)
        if form != MP4 and by_s3 and self.output is None:
            raise InvalidRequest(
                '"s3_output_prefix": missing; expected the folder for the films: in "s3_bucket", or s3://bucket/folder '
                f"(one model with Accept: {MP4} needs none)"
            )


class SyncFields(BaseModel):
    """The options of lip sync, by their names on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["lipsync"] = "lipsync"
    models: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(max_length=MOST_MODELS)
    ] = ()
    enhance: Enhance = "none"
    fps: float | None = None
    resize_factor: int = 1
    pads: tuple[Side, Side, Side, Side] = (0, 10, 0, 0)  # top, bottom, left, right
    nosmooth: bool = False
    loop: Loop | None = None
    reference: Reference | None = None
    face_index: Annotated[Literal["largest"] | int, BeforeValidator(parse_number)] = "largest"
    parity: bool = False
    s3_bucket: Bucket | None = None
    s3_output_prefix: Annotated[str, Field(max_length=1024)] | None = None
    presigned: bool = False

    def options(self) -> SyncOptions:
        """Raises: InvalidRequest."""
        base = PARITY if self.parity else SyncOptions()
        return replace(
            base,
            fps=self.fps,
            resize_factor=self.resize_factor,
            pads=Pads(*self.pads),
            face=self.face_index,
            enhance=self.enhance,
            loop=self.loop or base.loop,
            reference=self.reference or base.reference,
            smoothing="none" if self.nosmooth else base.smoothing,
        )

    def output(self) -> S3Folder | None:
        """Raises: InvalidRequest where no bucket is named."""
        if self.s3_output_prefix is None:
            if self.presigned:
                raise InvalidRequest('"presigned": is of films in S3; expected "s3_output_prefix", too')
            return None
        bucket, prefix = self.s3_bucket, self.s3_output_prefix
        if prefix.startswith(SCHEME):
            bucket, _, prefix = prefix.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise InvalidRequest('"s3_output_prefix": no bucket; expected "s3_bucket", or s3://bucket/folder')
        return S3Folder(bucket, prefix.strip("/") + "/" if prefix.strip("/") else "")

    def request(self, face: S3Object | bytes, audio: S3Object | bytes) -> SyncRequest:
        return SyncRequest(face, audio, self.options(), self.models, self.output(), self.presigned)


class SyncBody(SyncFields):
    """The JSON body of a lip sync request: a face and a voice, each from S3 or inline."""

    s3_video_key: Key | None = None
    s3_audio_key: Key | None = None
    face: str | None = None
    audio: str | None = None

    def source(self, key_name: str, inline_name: str) -> S3Object | bytes:
        """Raises: InvalidRequest where it is there twice, or not at all."""
        key, inline = getattr(self, key_name), getattr(self, inline_name)
        if (key is None) == (inline is None):
            raise InvalidRequest(f'expected either "s3_bucket" and "{key_name}", or "{inline_name}" in base64')
        if inline is not None:
            return decode_base64(inline, inline_name)
        if self.s3_bucket is None:
            raise InvalidRequest(f'"s3_bucket" and "{key_name}" go together')
        return S3Object(self.s3_bucket, key)


class GenerateBody(SyncFields):
    """The body of `POST /api/generate`: a face and a voice in base64."""

    image: str
    audio: str


def parse_sync(fields: dict[str, Any], headers: Mapping[str, str]) -> SyncRequest:
    """fields: of the body; options may lie in X-Amzn-SageMaker-Custom-Attributes as well, where the body's go first.

    Raises: InvalidRequest naming the field.
    """
    validate(SyncFields, header_fields(headers))
    body = validate(SyncBody, header_fields(headers) | fields)
    return body.request(body.source("s3_video_key", "face"), body.source("s3_audio_key", "audio"))


def parse_generate(fields: dict[str, Any], headers: Mapping[str, str]) -> SyncRequest:
    """As `parse_sync`; options may lie in the body, too.

    Raises: InvalidRequest naming the field.
    """
    validate(SyncFields, header_fields(headers))
    body = validate(GenerateBody, header_fields(headers) | fields)
    if body.s3_output_prefix is not None or len(body.models) > 1:
        raise InvalidRequest('one film comes back here: no "s3_output_prefix", and one of "models" at most')
    return body.request(decode_base64(body.image, "image"), decode_base64(body.audio, "audio"))
