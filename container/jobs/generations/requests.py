"""Generations as they are requested: checked, and turned into the lip sync that a job runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from container.http.generation_errors import GenerationRejected
from container.jobs.generations.fields import (
    ActiveSpeakerFields,
    GenerationBody,
    GenerationInput,
    GenerationOptions,
    GenerationSegment,
    parse_part,
)

# Names of sync.so's general models: each is the first checkpoint of this server. Its others do more than lip sync.
ALIASES = ("lipsync-2", "lipsync-2-pro", "lipsync-1.9.0-beta")
UNSUPPORTED_MODEL = "generation_unsupported_model"
TOO_MANY_VISUAL = "generation_input_too_many_visual"
VIDEO_MISSING, AUDIO_MISSING = "generation_video_missing", "generation_audio_missing"
INVALID_SEGMENTS = "generation_input_segments_invalid"
INVALID_SPEAKER = "generation_input_face_selection_invalid"


@dataclass(frozen=True)
class GenerationRequest:
    """A valid generation. model: a checkpoint of this server."""

    body: GenerationBody
    model: str
    visual: GenerationInput
    audios: tuple[GenerationInput, ...]
    options: GenerationOptions
    speaker: ActiveSpeakerFields
    segments: tuple[GenerationSegment, ...]

    @classmethod
    def parse(cls, fields: Mapping[str, Any], models: Sequence[str], uploaded: frozenset[str] = frozenset()) -> Self:
        """Check the fields of a request.

        models: checkpoints of this server, the default first. uploaded: types of the inputs that are files of a form,
        which "input" has without a URL.
        Raises: GenerationRejected naming the field.
        """
        body = parse_part(GenerationBody, fields, "the body")
        inputs = [parse_part(GenerationInput, one, "input", i) for i, one in enumerate(body.input)]
        options = parse_part(GenerationOptions, body.options or {}, "options")
        speaker = options.active_speaker_detection or {}
        request = cls(
            body,
            choose_model(body.model, models),
            find_visual(inputs),
            find_audios(inputs),
            options,
            parse_part(ActiveSpeakerFields, speaker, "active_speaker_detection"),
            tuple(parse_part(GenerationSegment, one, "segments", i) for i, one in enumerate(body.segments or [])),
        )
        check_media(inputs, uploaded)
        check_segments(request)
        check_speaker(request.speaker, request.visual.type)
        return request

    @property
    def urls(self) -> list[tuple[str, str]]:
        """The type and URL of each input that has one."""
        return [(one.type, one.url) for one in (self.visual, *self.audios) if one.url is not None]

    def job_fields(self) -> dict[str, Any]:
        """Return the fields of the job's JSON body, without the media that are files."""
        fields: dict[str, Any] = {"task": "lipsync", "models": [self.model]}
        if self.visual.url is not None:
            fields["face_url"] = self.visual.url
        if self.segments:
            fields["audio_urls"] = [one.url for one in self.audios]
            fields["segments"] = [self._segment_fields(one) for one in self.segments]
        elif self.audios[0].url is not None:
            fields["audio_url"] = self.audios[0].url
        # As at sync.so, an image has no length that could differ, and the mode does not apply.
        if self.options.sync_mode is not None and self.visual.type == "video":
            fields["sync_mode"] = self.options.sync_mode
        if (speaker := self._speaker_fields()) is not None:
            fields["active_speaker"] = speaker
        return fields

    def record(self) -> dict[str, Any]:
        """Return what answers repeat of the request. model: that of this server, also if an alias was requested."""
        given = self.body.model_dump(exclude_none=True)
        return given | {"model": self.model}

    def _segment_fields(self, segment: GenerationSegment) -> dict[str, Any]:
        names = [one.refId for one in self.audios]
        return {
            "start_s": segment.startTime,
            "end_s": segment.endTime,
            "audio": names.index(segment.audioInput.refId),
            "audio_start_s": segment.audioInput.startTime or 0.0,
            "audio_end_s": segment.audioInput.endTime,
        }

    def _speaker_fields(self) -> dict[str, Any] | None:
        speaker = self.speaker
        if speaker.bounding_boxes is not None:
            return {"boxes": speaker.bounding_boxes}
        if speaker.coordinates is not None:
            return {"frame": speaker.frame_number or 0, "point": speaker.coordinates}
        return {"mode": "auto"} if speaker.auto_detect else None


def choose_model(name: str, models: Sequence[str]) -> str:
    """Return the checkpoint of a model's name. Raises: GenerationRejected."""
    if name in models:
        return name
    if name in ALIASES and models:
        return models[0]
    known = ", ".join((*models, *ALIASES)) if models else "none: this server has no lip-sync weights"
    raise GenerationRejected(UNSUPPORTED_MODEL, f'"model": found {name[:100]!r}; models of this server: {known}')


def find_visual(inputs: Sequence[GenerationInput]) -> GenerationInput:
    """Return the only video or image. Raises: GenerationRejected."""
    found = [one for one in inputs if one.type != "audio"]
    if not found:
        raise GenerationRejected(VIDEO_MISSING, '"input": no video; expected one video or image')
    if len(found) > 1:
        raise GenerationRejected(TOO_MANY_VISUAL, f'"input": {len(found)} videos and images; expected one')
    return found[0]


def find_audios(inputs: Sequence[GenerationInput]) -> tuple[GenerationInput, ...]:
    """Return the audios, in their order. Raises: GenerationRejected if the request has no audio."""
    found = tuple(one for one in inputs if one.type == "audio")
    if not found:
        raise GenerationRejected(AUDIO_MISSING, '"input": no audio; expected at least one')
    return found


def check_media(inputs: Sequence[GenerationInput], uploaded: frozenset[str]) -> None:
    """Raise GenerationRejected if an input is neither at a URL nor a file of the form."""
    n_without = len([one for one in inputs if one.url is None])
    if n_without > len(uploaded):
        index = next(i for i, one in enumerate(inputs) if one.url is None)
        code = VIDEO_MISSING if inputs[index].type != "audio" else AUDIO_MISSING
        raise GenerationRejected(code, f'input[{index}]: no "url"; expected one, or a file of a form')


def check_segments(request: GenerationRequest) -> None:
    """Raise GenerationRejected if segments and audios do not belong together."""
    segments, audios = request.segments, request.audios
    if not segments:
        if len(audios) > 1:
            raise rejected_segments(f'"input": {len(audios)} audios; expected "segments" as well, or one audio')
        return
    if request.visual.type == "image":
        raise rejected_segments('"segments": found an image; expected a video, of which they are parts')
    if any(one.url is None for one in audios):
        raise rejected_segments('"segments": expected each audio at a url, not as a file')
    names = [one.refId for one in audios]
    if None in names or len(set(names)) < len(names):
        raise rejected_segments('"input": expected a "refId" of its own for each audio, as there are "segments"')
    used = {one.audioInput.refId for one in segments}
    if unknown := used - set(names):
        raise rejected_segments(f'"segments": no audio has the refId {min(unknown)[:100]!r}')
    if unused := {str(name) for name in names} - used:
        raise rejected_segments(f'"input": no segment uses the audio {min(unused)!r}')
    check_times(segments)


def check_times(segments: Sequence[GenerationSegment]) -> None:
    """Raise GenerationRejected if a segment is empty, or two overlap."""
    end_s = 0.0
    for one in sorted(segments, key=lambda one: one.startTime):
        if one.endTime <= one.startTime:
            raise rejected_segments(f'"segments": {one.startTime:g} to {one.endTime:g} s; expected a later end')
        if one.startTime < end_s:
            raise rejected_segments(f'"segments": two overlap at {one.startTime:g} s')
        end_s = one.endTime
        cut = one.audioInput
        if (cut.startTime is None) != (cut.endTime is None):
            raise rejected_segments('"audioInput": "startTime" and "endTime" go together')
        if cut.startTime is not None and cut.endTime is not None and cut.endTime <= cut.startTime:
            raise rejected_segments(f'"audioInput": {cut.startTime:g} to {cut.endTime:g} s; expected a later end')


def check_speaker(speaker: ActiveSpeakerFields, visual: str) -> None:
    """Raise GenerationRejected if a speaker is chosen in two ways, or half. visual: video or image."""
    ways = {
        "auto_detect": bool(speaker.auto_detect),
        "coordinates": speaker.coordinates is not None,
        "bounding_boxes": speaker.bounding_boxes is not None,
    }
    if sum(ways.values()) > 1:
        names = " and ".join(f'"{name}"' for name, is_used in ways.items() if is_used)
        raise GenerationRejected(INVALID_SPEAKER, f'"active_speaker_detection": {names}; expected one of them')
    if speaker.auto_detect and visual == "image":
        raise GenerationRejected(INVALID_SPEAKER, '"auto_detect": found an image; expected "coordinates" in frame 0')
    if speaker.frame_number is not None and speaker.coordinates is None:
        raise GenerationRejected(INVALID_SPEAKER, '"frame_number": expected "coordinates" as well')
    for box in speaker.bounding_boxes or []:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise GenerationRejected(INVALID_SPEAKER, f'"bounding_boxes": found {box}; expected x1 < x2 and y1 < y2')


def rejected_segments(message: str) -> GenerationRejected:
    return GenerationRejected(INVALID_SEGMENTS, message)
