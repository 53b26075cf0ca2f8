"""Requests for the visemes of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from inference.errors import InvalidRequest
from inference.media_types import VISEME_TYPES, AcceptHeader
from inference.requests.body import Bucket, Key, MediaSource, S3Object, decode_base64, validate


@dataclass(frozen=True)
class VisemeRequest:
    """A request for visemes: speech, as an audio file or a video with audio."""

    task: ClassVar[str] = "visemes"
    uses_job_deadline: ClassVar[bool] = True  # bounded by Settings.job_deadline_s: an hour of speech takes minutes
    source: MediaSource

    @property
    def sources(self) -> tuple[tuple[str, MediaSource], ...]:
        """The media, each with the name of its field."""
        return (("audio", self.source),)

    def choose_type(self, accept: AcceptHeader) -> str:
        """Return the media type of the answer. Raises: UnsupportedContentType."""
        return accept.choose(VISEME_TYPES)


class VisemeBody(BaseModel):
    """The JSON body of a request for visemes: the audio in S3, or inline in base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["visemes"] = "visemes"
    s3_bucket: Bucket | None = None
    s3_audio_key: Key | None = None
    audio: str | None = None

    def source(self) -> MediaSource:
        """Return where the audio is, or the audio. Raises: InvalidRequest unless exactly one is given."""
        by_s3 = self.s3_bucket is not None or self.s3_audio_key is not None
        if by_s3 == (self.audio is not None):
            raise InvalidRequest('expected either "s3_bucket" and "s3_audio_key", or "audio" in base64')
        if self.audio is not None:
            return decode_base64(self.audio, "audio")
        if self.s3_bucket is None or self.s3_audio_key is None:
            raise InvalidRequest('"s3_bucket" and "s3_audio_key" go together')
        return S3Object(self.s3_bucket, self.s3_audio_key)


def parse_viseme_fields(fields: dict[str, Any]) -> VisemeRequest:
    """Parse the fields of a JSON body. Raises: InvalidRequest naming the field."""
    return VisemeRequest(validate(VisemeBody, fields).source())
