"""The fields of a generation as sync.so names them: those that are offered here, and those that are refused by name.

Source: the class CreateGenerationDto of the PyPI package syncsdk 0.3.0, and
https://sync.so/docs/api-reference/api/generate-api/create for fields that are newer than it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from container.http.generation_errors import INVALID_INPUT, GenerationRejected
from inference.errors import InvalidRequest
from inference.requests.body import validate

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixel = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Box = Annotated[list[Pixel], Field(min_length=4, max_length=4)]
Fields = TypeVar("Fields", bound=BaseModel)
MAX_INPUTS, MAX_SEGMENTS = 32, 100
# Fields of sync.so that this server does not offer, and what it does instead.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "the body": {
        "dubParams": "translation is not offered: send the audio in the other language",
        "dialogueEdit": "editing dialogue is not offered",
        "projectId": "projects are not offered",
        "source": "labels of sources are not offered",
    },
    "input": {
        "assetId": "assets are not offered: expected a url, or a file of a form",
        "provider": "text-to-speech is not offered: send the audio",
        "segments_secs": 'deprecated, and not offered: expected "segments" of the body',
        "segments_frames": 'deprecated, and not offered: expected "segments" of the body',
    },
    "options": {
        "model_mode": "not offered: the lower face alone is changed",
        "prompt": "not offered: emotions stay those of the video",
        "temperature": "not offered: the models have none",
        "occlusion_detection_enabled": "not offered: expected false",
        "pads": "not offered here: POST /v1/jobs has it",
        "fps": "not offered here: POST /v1/jobs has it",
        "speedup": "not offered",
        "output_format": "not offered: videos are MP4",
        "output_resolution": "not offered: videos have the size of the input",
        "active_speaker": 'not offered: expected "active_speaker_detection"',
    },
    "active_speaker_detection": {"bounding_boxes_url": 'not offered: expected "bounding_boxes"'},
    "segments": {"optionsOverride": "not offered: options are those of the whole video"},
}


class SyncSoModel(BaseModel):
    """A part of a request, under its wire names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GenerationBody(SyncSoModel):
    """The body of POST /v2/generate."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    input: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_INPUTS)]
    options: dict[str, Any] | None = None
    segments: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_SEGMENTS)] | None = None
    webhookUrl: str | None = None  # noqa: N815 - sync.so's name
    outputFileName: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")] | None = None  # noqa: N815


class GenerationInput(SyncSoModel):
    """A video, image or audio: at a URL, or a file of the form."""

    type: Literal["video", "image", "audio"]
    url: str | None = None
    refId: Annotated[str, Field(min_length=1, max_length=100)] | None = None  # noqa: N815


class GenerationOptions(SyncSoModel):
    """The options of a generation."""

    sync_mode: Literal["bounce", "loop", "cut_off", "silence", "remap"] | None = None
    active_speaker_detection: dict[str, Any] | None = None
    occlusion_detection_enabled: Literal[False] | None = None


class ActiveSpeakerFields(SyncSoModel):
    """Whose lips are moved if there are several faces."""

    auto_detect: bool | None = None
    frame_number: Annotated[int, Field(ge=0)] | None = None
    coordinates: Annotated[list[Pixel], Field(min_length=2, max_length=2)] | None = None
    bounding_boxes: Annotated[list[Box | None], Field(min_length=1)] | None = None


class SegmentAudio(SyncSoModel):
    """The audio of a segment: one of the inputs, or a part of it."""

    refId: str  # noqa: N815
    startTime: Seconds | None = None  # noqa: N815
    endTime: Seconds | None = None  # noqa: N815


class GenerationSegment(SyncSoModel):
    """A part of the video whose lips move to one audio. Times in seconds."""

    startTime: Seconds  # noqa: N815
    endTime: Seconds  # noqa: N815
    audioInput: SegmentAudio  # noqa: N815


def parse_part(model: type[Fields], fields: Mapping[str, Any], label: str, index: int | None = None) -> Fields:
    """Validate a part of a request. label: its name, by which `REFUSED` lists its fields. index: in a list.

    Raises: GenerationRejected naming the field.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    place = label if index is None else f"{label}[{index}]"
    for name, reason in REFUSED.get(label, {}).items():
        if name in given and not (name == "occlusion_detection_enabled" and given[name] is False):
            raise GenerationRejected(INVALID_INPUT, f'{place}: "{name}": {reason}')
    if label == "input" and given.get("type") == "text":
        raise GenerationRejected(INVALID_INPUT, f'{place}: "text": {REFUSED["input"]["provider"]}')
    try:
        return validate(model, given)
    except InvalidRequest as err:
        raise GenerationRejected(INVALID_INPUT, f"{place}: {err}") from err
