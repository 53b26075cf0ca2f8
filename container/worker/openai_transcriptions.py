"""`POST /v1/audio/transcriptions` as OpenAI defines it, so that its unmodified clients can read lips."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from inference.engines import Answer, Engines, RequestCallbacks
from inference.errors import InvalidRequest, UnsupportedContentType
from inference.lip_reading import ReadOptions, Transcript
from inference.lip_reading.captions import format_captions
from inference.requests import JSON, SRT, TEXT, VTT, ReadRequest, shorten

FORMATS = {"json": JSON, "verbose_json": JSON, "text": TEXT, "srt": SRT, "vtt": VTT}
MAX_PARTS = 100  # parts of one form; a request has a few
GRANULARITIES = ("word", "segment")
# Fields of OpenAI's form that do not apply to lip reading: accepted and ignored.
IGNORED_FIELDS = ("model", "language", "prompt", "temperature", "chunking_strategy")


@dataclass
class TranscriptionForm:
    """The parts of a multipart form: the content of "file", and the values of the other fields by name."""

    file: bytes | None = None
    fields: dict[str, list[str]] = field(default_factory=dict)
    n_parts: int = 0

    def one(self, name: str, default: str) -> str:
        """Return the last value of a field."""
        return self.fields.get(name, [default])[-1]

    def many(self, name: str) -> list[str]:
        """Return all values of a field that may be repeated, as `name` or `name[]`."""
        return self.fields.get(f"{name}[]", []) + self.fields.get(name, [])


def answer_transcription(body: bytes, content_type: str, engines: Engines, callbacks: RequestCallbacks) -> Answer:
    """Read the lips in the form's file and encode the transcript in the form's response_format.

    Raises: InvalidRequest, UnsupportedContentType, MediaError.
    """
    form = parse_form(body, content_type)
    response_format = form.one("response_format", "json")
    granularities = form.many("timestamp_granularities")
    check_form(form, response_format, granularities)
    assert form.file is not None
    transcript = engines.run(ReadRequest(form.file, ReadOptions()), callbacks).transcript
    return Answer(encode(transcript, response_format, granularities), FORMATS[response_format])


def check_form(form: TranscriptionForm, response_format: str, granularities: list[str]) -> None:
    """Raise InvalidRequest if a field is missing, unknown or wrong."""
    if not form.file:
        raise InvalidRequest('"file": expected a video in the form')
    if response_format not in FORMATS:
        found = shorten(response_format)
        raise InvalidRequest(f'"response_format": found {found}; expected one of {", ".join(FORMATS)}')
    wrong = [one for one in granularities if one not in GRANULARITIES]
    if wrong:
        raise InvalidRequest(f'"timestamp_granularities": found {shorten(wrong[0])}; expected word or segment')
    if form.one("stream", "false").lower() not in ("false", "0"):
        raise InvalidRequest(
            '"stream": not supported here; POST /invocations streams with Accept: application/x-ndjson'
        )
    known = {"response_format", "timestamp_granularities", "timestamp_granularities[]", "stream", *IGNORED_FIELDS}
    unknown = [name for name in form.fields if name not in known]
    if unknown:
        raise InvalidRequest(f"{shorten(unknown[0])}: no such field; known: file, {', '.join(sorted(known))}")


def encode(transcript: Transcript, response_format: str, granularities: list[str]) -> bytes:
    if response_format == "text":
        return (transcript.text + "\n").encode()
    if response_format in ("srt", "vtt"):
        return format_captions(transcript.words, "vtt" if response_format == "vtt" else "srt").encode()
    answer: dict[str, Any] = {"text": transcript.text}
    if response_format == "verbose_json":
        answer |= {"task": "transcribe", "language": "english", "duration": transcript.duration_s}
        if "word" in granularities:
            answer["words"] = [{"word": w.word, "start": w.start, "end": w.end} for w in transcript.words]
        if "segment" in granularities or not granularities:
            answer["segments"] = [segment_of(transcript)]
    return json.dumps(answer).encode()


def segment_of(transcript: Transcript) -> dict[str, Any]:
    """Return the whole transcript as one segment; fields that only a speech decoder has are 0."""
    return {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": transcript.duration_s,
        "text": transcript.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 0.0,
        "no_speech_prob": 0.0,
    }


def parse_form(body: bytes, content_type: str) -> TranscriptionForm:
    """Parse a multipart form. Raises: UnsupportedContentType; InvalidRequest if the form is malformed."""
    kind, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedContentType(f"content type {content_type or '(none)'}: expected multipart/form-data")
    form = TranscriptionForm()

    def count_part() -> None:
        form.n_parts += 1
        if form.n_parts > MAX_PARTS:
            raise InvalidRequest(f"the form has over {MAX_PARTS} parts; a request has a few")

    def on_field(one: Any) -> None:
        count_part()
        name = (one.field_name or b"").decode("utf-8", "replace")
        form.fields.setdefault(name, []).append((one.value or b"").decode("utf-8", "replace"))

    def on_file(one: Any) -> None:
        count_part()
        if one.field_name == b"file":
            one.file_object.seek(0)
            form.file = one.file_object.read()
        one.close()

    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}  # in memory already: never spilled to disk
    try:
        parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary, config=limits)
        with contextlib.closing(parser):
            parser.write(body)
            parser.finalize()
    except (FormParserError, ValueError) as err:
        raise InvalidRequest(f"the form is malformed: {shorten(str(err))}") from err
    return form
