"""Lip sync requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference.errors import InvalidRequest
from inference.lip_sync import PARITY, Pads, SyncOptions
from inference.lip_sync.active_speaker import MAX_BOXES, ActiveSpeaker
from inference.lip_sync.options import EnhancerName, LoopMode, ReferenceMode, SyncMode
from inference.lip_sync.segments import MAX_SEGMENTS, SyncSegment, check_audio_count
from inference.media_types import MP4, SYNC_TYPES, AcceptHeader
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

MAX_MODELS = 8  # models of one request
MAX_AUDIOS = 20  # audio files of one request
SCHEME = "s3://"
Padding = Annotated[int, Field(strict=True)]
ModelName = Annotated[str, Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class S3Folder:
    """The S3 folder for the videos. prefix: ends with a slash, or is empty."""

    bucket: str
    prefix: str


@dataclass(frozen=True)
class SyncRequest:
    """A lip sync request.

    face: a video or an image. models: by name; empty for the deployment's first. output: None if the videos
    are returned in the answer. is_presigned: whether the URLs of videos in S3 work without credentials.
    is_brief: whether JSON is the short answer of `POST /api/generate`. more_audio: audio files after the first one, for
    segments.
    """

    task: ClassVar[str] = "lipsync"
    uses_job_deadline: ClassVar[bool] = True  # bounded by Settings.job_deadline_s
    face: MediaSource
    audio: MediaSource
    options: SyncOptions
    models: tuple[str, ...] = ()
    output: S3Folder | None = None
    is_presigned: bool = False
    is_brief: bool = False
    more_audio: tuple[MediaSource, ...] = ()

    @property
    def audios(self) -> tuple[MediaSource, ...]:
        """All audio files, in the order in which segments count them."""
        return (self.audio, *self.more_audio)

    @property
    def sources(self) -> tuple[tuple[str, MediaSource], ...]:
        """The media, each with the name of its field."""
        return (("face", self.face), *(("audio", audio) for audio in self.audios))

    def choose_type(self, accept: AcceptHeader) -> str:
        """Return the media type of the answer.

        Raises: UnsupportedContentType; InvalidRequest if an answer of that type cannot contain what is requested.
        """
        media_type = accept.choose(SYNC_TYPES)
        self.check_type(media_type)
        return media_type

    def check_type(self, media_type: str) -> None:
        """Check, before any work is done, that an answer of this type can contain what is requested.

        Raises: InvalidRequest.
        """
        if media_type == MP4 and len(self.models) > 1:
            raise InvalidRequest(
                f'"models": {len(self.models)} videos do not fit into one {MP4}; request one model, or JSON'
            )
        by_s3 = any(isinstance(source, S3Object) for _, source in self.sources)
        if media_type != MP4 and by_s3 and self.output is None:
            raise InvalidRequest(
                '"s3_output_prefix": missing; expected a folder for the videos: in "s3_bucket", or s3://bucket/folder '
                f"(not needed for one model with Accept: {MP4})"
            )


class SegmentFields(BaseModel):
    """A part of the video that speaks a part of an audio file; see `SyncSegment`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_s: float
    end_s: float | None = None
    audio: Annotated[int, Field(strict=True)] = 0
    audio_start_s: float | None = None
    audio_end_s: float | None = None

    def segment(self) -> SyncSegment:
        return SyncSegment(self.start_s, self.end_s, self.audio, self.audio_start_s or 0.0, self.audio_end_s)


class SpeakerFields(BaseModel):
    """The face to sync; see `ActiveSpeaker`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["auto"] | None = None
    frame: Annotated[int, Field(strict=True)] | None = None
    point: tuple[float, float] | None = None
    boxes: Annotated[tuple[tuple[float, float, float, float] | None, ...], Field(max_length=MAX_BOXES)] | None = None

    def speaker(self) -> ActiveSpeaker:
        return ActiveSpeaker(self.mode, self.frame, self.point, self.boxes)


class SyncFields(BaseModel):
    """The options of lip sync, under their wire names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["lipsync"] = "lipsync"
    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_MODELS)] = ()
    enhance: EnhancerName = "none"
    fps: float | None = None
    resize_factor: int = 1
    pads: tuple[Padding, Padding, Padding, Padding] = (0, 10, 0, 0)  # top, bottom, left, right
    nosmooth: bool = False
    loop: LoopMode | None = None
    reference: ReferenceMode | None = None
    sync_mode: SyncMode | None = None
    segments: Annotated[tuple[SegmentFields, ...], Field(max_length=MAX_SEGMENTS)] = ()
    active_speaker: SpeakerFields | None = None
    face_index: Annotated[Literal["largest"] | int, BeforeValidator(parse_number)] = "largest"
    parity: bool = False
    s3_bucket: Bucket | None = None
    s3_output_prefix: Annotated[str, Field(max_length=1024)] | None = None
    presigned: bool = False

    def options(self) -> SyncOptions:
        """Return the options of the pipeline. Raises: InvalidRequest."""
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
            sync_mode=self.sync_mode,
            segments=tuple(one.segment() for one in self.segments),
            active_speaker=None if self.active_speaker is None else self.active_speaker.speaker(),
        )

    def output(self) -> S3Folder | None:
        """Return the folder for the videos; None without one. Raises: InvalidRequest if no bucket is named."""
        if self.s3_output_prefix is None:
            if self.presigned:
                raise InvalidRequest('"presigned": applies to videos in S3; expected "s3_output_prefix" as well')
            return None
        bucket, prefix = self.s3_bucket, self.s3_output_prefix
        if prefix.startswith(SCHEME):
            bucket, _, prefix = prefix.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise InvalidRequest('"s3_output_prefix": no bucket; expected "s3_bucket", or s3://bucket/folder')
        return S3Folder(bucket, prefix.strip("/") + "/" if prefix.strip("/") else "")

    def request(self, face: MediaSource, audios: Sequence[MediaSource]) -> SyncRequest:
        """Return the request. Raises: InvalidRequest, also if segments and audio files do not fit together."""
        options = self.options()
        check_audio_count(options.segments, len(audios))
        audio, *more = audios
        return SyncRequest(face, audio, options, self.models, self.output(), self.presigned, more_audio=tuple(more))


class SyncBody(SyncFields):
    """The JSON body of a lip sync request: a face and audio, each in S3, inline in base64, or for jobs at a URL.

    Segments may use several audio files, which are listed.
    """

    s3_video_key: Key | None = None
    s3_audio_key: Key | None = None
    face: str | None = None
    audio: str | None = None
    face_url: str | None = None
    audio_url: str | None = None
    s3_audio_keys: Annotated[tuple[Key, ...], Field(max_length=MAX_AUDIOS)] = ()
    audios: Annotated[tuple[str, ...], Field(max_length=MAX_AUDIOS)] = ()
    audio_urls: Annotated[tuple[str, ...], Field(max_length=MAX_AUDIOS)] = ()

    def source(self, key_name: str, inline_name: str) -> MediaSource:
        """Return one of the two media, or where it is. Raises: InvalidRequest unless exactly one is given."""
        url_name = f"{inline_name}_url"
        key, inline, url = getattr(self, key_name), getattr(self, inline_name), getattr(self, url_name)
        if [key, inline, url].count(None) != 2:
            raise InvalidRequest(
                f'expected either "s3_bucket" and "{key_name}", or "{inline_name}" in base64, or for jobs "{url_name}"'
            )
        if inline is not None:
            return decode_base64(inline, inline_name)
        return UrlObject.parse(url, url_name) if url is not None else self._object(key, key_name)

    def audio_sources(self) -> list[MediaSource]:
        """Return the audio, or the audio files of segments. Raises: InvalidRequest unless one form is used."""
        lists = [name for name in ("s3_audio_keys", "audios", "audio_urls") if getattr(self, name)]
        if not lists:
            return [self.source("s3_audio_key", "audio")]
        single = [name for name in ("s3_audio_key", "audio", "audio_url") if getattr(self, name) is not None]
        if len(lists + single) > 1:
            found = ", ".join(f'"{name}"' for name in [*single, *lists])
            raise InvalidRequest(f"found {found}; expected one of them, with all audio files")
        objects = [self._object(key, "s3_audio_keys") for key in self.s3_audio_keys]
        urls = [UrlObject.parse(url, "audio_urls") for url in self.audio_urls]
        return [*objects, *(decode_base64(text, "audios") for text in self.audios), *urls]

    def _object(self, key: str, key_name: str) -> S3Object:
        if self.s3_bucket is None:
            raise InvalidRequest(f'"s3_bucket" and "{key_name}" go together')
        return S3Object(self.s3_bucket, key)


class GenerateBody(SyncFields):
    """The body of `POST /api/generate`: a face and audio in base64."""

    image: str
    audio: str


def parse_sync_fields(fields: dict[str, Any], headers: Mapping[str, str]) -> SyncRequest:
    """Parse the fields of a JSON body; the options in X-Amzn-SageMaker-Custom-Attributes apply if the body lacks them.

    Raises: InvalidRequest naming the field.
    """
    validate(SyncFields, header_fields(headers))
    body = validate(SyncBody, header_fields(headers) | fields)
    return body.request(body.source("s3_video_key", "face"), body.audio_sources())


def parse_generate_fields(fields: dict[str, Any], headers: Mapping[str, str]) -> SyncRequest:
    """Parse the fields of `POST /api/generate`; options as in `parse_sync_fields`.

    Raises: InvalidRequest naming the field.
    """
    validate(SyncFields, header_fields(headers))
    body = validate(GenerateBody, header_fields(headers) | fields)
    if body.s3_output_prefix is not None or len(body.models) > 1:
        raise InvalidRequest('one video is returned here: expected no "s3_output_prefix", and at most one of "models"')
    request = body.request(decode_base64(body.image, "image"), [decode_base64(body.audio, "audio")])
    return replace(request, is_brief=True)
