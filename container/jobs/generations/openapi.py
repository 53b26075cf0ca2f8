"""The part of the OpenAPI document that describes generations. `container.openapi` adds it."""

from __future__ import annotations

from http.client import responses
from typing import Any

from pydantic.json_schema import models_json_schema

from container.jobs.generations.fields import (
    ActiveSpeakerFields,
    GenerationBody,
    GenerationInput,
    GenerationOptions,
    GenerationSegment,
)
from container.jobs.generations.forms import FORM
from container.jobs.generations.listing import MAX_LIMIT, MAX_UNPAGED
from container.jobs.generations.views import STATUSES
from inference.media_types import JSON, MP4

Node = dict[str, Any]
TAG = "sync.so"
DESCRIPTION = "Lip sync in the form of sync.so's API, over the same jobs"
REF = "#/components/schemas/"
GENERATION = {"$ref": f"{REF}Generation"}
SUBMIT_ERRORS = (400, 401, 403, 408, 409, 413, 415, 429, 500, 502, 503, 507)
READ_ERRORS = (400, 401, 403, 404, 500, 502)
TEXT: Node = {"type": "string"}
OPTIONAL_TEXT: Node = {"type": ["string", "null"]}


def operation(name: str, summary: str, found: Node, errors: tuple[int, ...], **fields: Any) -> Node:
    """Return an operation. found: responses that are no errors, by status."""
    content = {JSON: {"schema": {"$ref": f"{REF}GenerationError"}}}
    failed = {str(status): {"description": responses[status], "content": content} for status in errors}
    return {"tags": [TAG], "operationId": name, "summary": summary, "responses": found | failed} | fields


def success(text: str, schema: Node) -> Node:
    return {"description": text, "content": {JSON: {"schema": schema}}}


def query(name: str, text: str, schema: Node) -> Node:
    return {"name": name, "in": "query", "description": text, "schema": schema}


JOB_ID: Node = {"name": "id", "in": "path", "description": "The generation's id", "required": True, "schema": TEXT}
KEY: Node = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and request are the same generation",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"},
}
TEXTS: Node = {"type": "array", "items": TEXT}
PATHS: Node = {
    "/v2/generate": {
        "post": operation(
            "createGeneration",
            "Submit a lip sync, in sync.so's form",
            {
                "201": success("The generation is queued", GENERATION),
                "200": success("The generation that was submitted with this Idempotency-Key before", GENERATION),
            },
            SUBMIT_ERRORS,
            parameters=[KEY],
            requestBody={
                "required": True,
                "content": {
                    JSON: {"schema": {"$ref": f"{REF}GenerationRequest"}},
                    FORM: {"schema": {"$ref": f"{REF}GenerationForm"}},
                },
            },
        )
    },
    "/v2/generate/{id}": {
        "parameters": [JOB_ID],
        "get": operation("getGeneration", "Show a generation", {"200": success("It", GENERATION)}, READ_ERRORS),
    },
    "/v2/generations": {
        "get": operation(
            "listGenerations",
            "List your generations, the newest first",
            {"200": success("The generations", {"type": "array", "items": GENERATION})},
            READ_ERRORS,
            parameters=[
                query("status", "Only these, repeated or separated by commas", TEXTS),
                query("ids", "Only these, repeated or separated by commas", TEXTS),
                query(
                    "limit",
                    f"Generations per page; without it the newest {MAX_UNPAGED}",
                    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
                ),
                query("cursor", "The id of the last generation of the page before", TEXT),
            ],
        )
    },
    "/v2/generations/{id}/result": {
        "parameters": [JOB_ID],
        "get": operation(
            "getGenerationResult",
            "Download the video, by the outputUrl of a generation",
            {
                "200": {"description": "The video", "content": {MP4: {}}},
                "206": {"description": "The range", "content": {MP4: {}}},
                "304": {"description": "The caller has it: If-None-Match"},
                "307": {"description": "The video is in S3"},
            },
            (403, 404, 416, 500, 502),
            parameters=[query("token", "The time when the URL expires, and its signature", TEXT)],
            security=[{}],
        ),
    },
    "/v2/models": {
        "get": operation(
            "listModels",
            "List the lip-sync checkpoints",
            {"200": success("The models", {"type": "array", "items": {"$ref": f"{REF}GenerationModel"}})},
            (401, 403, 500, 503),
        )
    },
}


def make_schemas() -> Node:
    """Return the schemas: of requests as they are validated, of answers as they are made."""
    parts = (GenerationBody, GenerationInput, GenerationOptions, ActiveSpeakerFields, GenerationSegment)
    _, common = models_json_schema([(model, "validation") for model in parts], ref_template=f"{REF}{{model}}")
    found: Node = common["$defs"]
    request = found.pop("GenerationBody")
    for name, part in (("input", "GenerationInput"), ("segments", "GenerationSegment")):
        request["properties"][name] = {"type": "array", "items": {"$ref": f"{REF}{part}"}, "minItems": 1}
    request["properties"]["options"] = {"$ref": f"{REF}GenerationOptions"}
    speaker = {"$ref": f"{REF}ActiveSpeakerFields"}
    found["GenerationOptions"]["properties"]["active_speaker_detection"] = speaker
    return found | {"GenerationRequest": request | {"title": "GenerationRequest"}, **ANSWERS}


FILE: Node = {"type": "string", "contentMediaType": "application/octet-stream"}
ANSWERS: Node = {
    "GenerationForm": {
        "type": "object",
        "properties": {
            "model": TEXT,
            "video": FILE,
            "image": FILE,
            "audio": FILE,
            "input": TEXT | {"description": "JSON: inputs at URLs"},
            "options": TEXT | {"description": "JSON: options of the request"},
            "segments": TEXT | {"description": "JSON: segments of the request"},
            "webhookUrl": TEXT,
            "outputFileName": TEXT,
        },
        "required": ["model"],
    },
    "Generation": {
        "type": "object",
        "properties": {
            "id": TEXT,
            "createdAt": {"type": "string", "format": "date-time"},
            "status": {"enum": list(dict.fromkeys(STATUSES.values()))},
            "model": TEXT | {"description": "The checkpoint that is used"},
            "input": {"type": "array", "items": {"type": "object"}},
            "options": {"type": ["object", "null"]},
            "segments": {"type": ["array", "null"]},
            "webhookUrl": OPTIONAL_TEXT,
            "outputFileName": OPTIONAL_TEXT,
            "outputUrl": OPTIONAL_TEXT | {"description": "Where the video can be downloaded, for 48 hours"},
            "outputDuration": {"type": ["number", "null"], "description": "Seconds"},
            "segmentOutputUrl": {"type": "null"},
            "error": OPTIONAL_TEXT,
            "error_code": OPTIONAL_TEXT,
            "errorCode": OPTIONAL_TEXT,
        },
        "required": ["id", "createdAt", "status", "model", "input"],
    },
    "GenerationModel": {
        "type": "object",
        "properties": {"id": TEXT, "name": TEXT, "type": {"const": "lipsync"}, "version": TEXT, "description": TEXT},
        "required": ["id", "name", "type", "version"],
    },
    "GenerationError": {
        "type": "object",
        "properties": {"message": TEXT, "error": TEXT, "statusCode": {"type": "integer"}, "errorCode": TEXT},
        "required": ["message", "statusCode"],
    },
}
