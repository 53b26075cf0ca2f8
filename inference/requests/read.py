"""Lip reading, as it is asked for over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference.errors import InvalidRequest
from inference.lip_reading import ReadOptions
from inference.lip_reading.options import FPS, MOST_BEST, N_BEST, Decoder
from inference.requests.answers import READ_ANSWERS
from inference.requests.body import Bucket, Key, S3Object, decode_base64, header_fields, parse_number, validate


@dataclass(frozen=True)
class ReadRequest:
    """Lip reading, asked for: where the video is, and how to read it."""

    source: S3Object | bytes
    options: ReadOptions

    @property
    def answers(self) -> tuple[str, ...]:
        """The forms it can be answered in."""
        return READ_ANSWERS


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

    s3_bucket: Bucket | None = None
    s3_video_key: Key | None = None
    video: str | None = None

    def source(self) -> S3Object | bytes:
        by_s3 = self.s3_bucket is not None or self.s3_video_key is not None
        if by_s3 == (self.video is not None):
            raise InvalidRequest('expected either "s3_bucket" and "s3_video_key", or "video" in base64')
        if self.video is not None:
            return decode_base64(self.video, "video")
        if self.s3_bucket is None or self.s3_video_key is None:
            raise InvalidRequest('"s3_bucket" and "s3_video_key" go together')
        return S3Object(self.s3_bucket, self.s3_video_key)


def parse_read(fields: dict[str, Any]) -> ReadRequest:
    """Raises: InvalidRequest naming the field."""
    body = validate(ReadBody, fields)
    return ReadRequest(body.source(), body.options())


def options_of(headers: Mapping[str, str]) -> ReadOptions:
    """Options from X-Amzn-SageMaker-Custom-Attributes, where it holds a JSON object.

    Raises: InvalidRequest naming the field.
    """
    return validate(ReadFields, header_fields(headers)).options()
