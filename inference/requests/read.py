"""Lip reading requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference.errors import InvalidRequest
from inference.lip_reading import ReadOptions
from inference.lip_reading.options import DEFAULT_N_BEST, FPS, MAX_N_BEST, MAX_PHRASES, Decoder
from inference.media_types import READ_TYPES, AcceptHeader
from inference.requests.body import (
    Bucket,
    Key,
    MediaSource,
    S3Object,
    UrlObject,
    decode_base64,
    header_fields,
    parse_number,
    validate,
)


@dataclass(frozen=True)
class ReadRequest:
    """A lip reading request: the video and how to read it."""

    task: ClassVar[str] = "lipread"
    uses_job_deadline: ClassVar[bool] = False  # bounded by Settings.deadline_s

    source: MediaSource
    options: ReadOptions

    @property
    def sources(self) -> tuple[tuple[str, MediaSource], ...]:
        """The media, each with the name of its field."""
        return (("video", self.source),)

    def choose_type(self, accept: AcceptHeader) -> str:
        """Return the media type of the answer. Raises: UnsupportedContentType."""
        return accept.choose(READ_TYPES)


class ReadFields(BaseModel):
    """The options of lip reading, under their wire names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["lipread"] = "lipread"
    fps: Annotated[float, Field(ge=FPS, le=FPS)] = (
        FPS  # the rate that the networks were trained at; the video itself may have any rate
    )
    face: Annotated[Literal["largest"] | int, BeforeValidator(parse_number)] = "largest"
    decoder: Decoder = "auto"
    nbest: Annotated[int, Field(ge=1, le=MAX_N_BEST), BeforeValidator(parse_number)] = DEFAULT_N_BEST
    exact: bool = False
    mouths: bool = False
    phrases: Annotated[tuple[str, ...], Field(max_length=MAX_PHRASES)] = ()

    def options(self) -> ReadOptions:
        return ReadOptions(self.face, self.decoder, self.nbest, self.exact, self.mouths, self.phrases)


class ReadBody(ReadFields):
    """The JSON body of a lip reading request: the video in S3, inline in base64, or for jobs at a URL."""

    s3_bucket: Bucket | None = None
    s3_video_key: Key | None = None
    s3_version_id: Key | None = None
    s3_etag: Key | None = None
    video: str | None = None
    video_url: str | None = None

    def source(self) -> MediaSource:
        """Return where the video is, or the video. Raises: InvalidRequest unless exactly one is given."""
        by_s3 = self.s3_bucket is not None or self.s3_video_key is not None
        if [by_s3, self.video is not None, self.video_url is not None].count(True) != 1:
            raise InvalidRequest(
                'expected either "s3_bucket" and "s3_video_key", or "video" in base64, or for jobs "video_url"'
            )
        if not by_s3 and (self.s3_version_id is not None or self.s3_etag is not None):
            raise InvalidRequest(
                '"s3_version_id" and "s3_etag" describe a video in S3; expected "s3_video_key" as well'
            )
        if self.video is not None:
            return decode_base64(self.video, "video")
        if self.video_url is not None:
            return UrlObject.parse(self.video_url, "video_url")
        if self.s3_bucket is None or self.s3_video_key is None:
            raise InvalidRequest('"s3_bucket" and "s3_video_key" go together')
        return S3Object(self.s3_bucket, self.s3_video_key, self.s3_version_id, self.s3_etag)


def parse_read_fields(fields: dict[str, Any]) -> ReadRequest:
    """Parse the fields of a JSON body. Raises: InvalidRequest naming the field."""
    body = validate(ReadBody, fields)
    return ReadRequest(body.source(), body.options())


def options_of(headers: Mapping[str, str]) -> ReadOptions:
    """Parse the options in X-Amzn-SageMaker-Custom-Attributes, if it is a JSON object.

    Raises: InvalidRequest naming the field.
    """
    return validate(ReadFields, header_fields(headers)).options()
