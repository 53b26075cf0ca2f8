"""The OpenAPI 3.1 description of the HTTP routes. It is imported when it is first requested."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from container.http.static_page import OPENAPI_PATH
from container.jobs.api.paging import DEFAULT_LIMIT, MAX_LIMIT
from container.jobs.api.submissions import EVENT_TYPES, IDEMPOTENCY_KEY
from container.jobs.generations import openapi as generations
from container.jobs.records import AttemptOutcome, JobState
from container.speech.requests import SpeechRequest
from container.worker.openai_transcriptions import FORMATS, GRANULARITIES
from inference.media_types import JSON, MP4, NDJSON, SRT, TEXT, TSV, VTT, WAV
from inference.requests.read import ReadBody
from inference.requests.sync import GenerateBody, SyncBody
from inference.requests.visemes import VisemeBody
from inference.visemes.blendshapes import BLENDSHAPES
from inference.visemes.phonemes import OCULUS_VISEMES

Node = dict[str, Any]
HTML, JAVASCRIPT, CSS, JPEG, METRICS, EVENTS = (
    "text/html",
    "text/javascript",
    "text/css",
    "image/jpeg",
    "text/plain",
    "text/event-stream",
)
REF = "#/components/schemas/"
STATUSES = {
    400: "The request is wrong: `invalid_request`, `unsupported_media`, `no_face_found` or `no_audio`",
    403: "`access_denied`",
    404: "`object_not_found`, `avatar_not_found`, `session_not_found` or `job_not_found`",
    408: "`deadline_exceeded`: the body arrives too slowly",
    409: "`idempotency_conflict`: the key was used for another request",
    412: "`precondition_failed`: If-Match names another version",
    413: "`media_too_large`",
    415: "`unsupported_content_type`",
    416: "The range is outside of the file",
    429: "`rate_limited`; see Retry-After",
    500: "`internal_error` or `worker_died`",
    501: "`speech_unavailable`: no synthesiser is installed; `webrtc_unavailable`: the extra `webrtc` is not installed",
    502: "`storage_unavailable`",
    503: "`overloaded` or `not_ready`; see Retry-After",
    504: "`deadline_exceeded`",
    507: "`out_of_memory` or `storage_full`; see Retry-After",
}
WORK_ERRORS = (400, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504, 507)
JOB_ERRORS = (403, 404, 500, 502)
WHEP_ERRORS = (400, 403, 404, 408, 413, 415, 429, 500, 501, 503)
SDP, ICE_FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"


@cache
def make_document() -> Node:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Viseme",
            "version": version("viseme"),
            "description": "Reads lips, moves lips, and runs live avatars (by WebSockets, not described here).",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": PATHS | generations.PATHS,
        "components": {"schemas": make_schemas() | generations.make_schemas(), "securitySchemes": SECURITY},
        "security": [{}, *({name: []} for name in SECURITY)],
    }


SECURITY = {
    "token": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
TAGS = {
    "inference": "Lip reading and lip sync, answered at once",
    "jobs": "The same as durable jobs, for work that takes long",
    generations.TAG: generations.DESCRIPTION,
    "live": "Live avatars",
    "status": "What monitors call",
    "aws": "SageMaker Runtime's own routes, with `viseme serve --aws-routes`",
    "pages": "Web pages and this document",
}


def ref(name: str) -> Node:
    return {"$ref": REF + name}


def content(*media_types: str, schema: Node | None = None) -> Node:
    """Return the content of a body in one of these media types. schema: of JSON; others are text or bytes."""
    return {one: {"schema": schema} if schema is not None and one == JSON else {} for one in media_types}


def answers(found: Node, errors: tuple[int, ...] = ()) -> Node:
    """Return the responses of an operation. found: those that are no errors, by status."""
    failed = {
        str(status): {"description": STATUSES[status], "content": content(JSON, schema=ref("Error"))}
        for status in errors
    }
    return found | failed


def success(text: str, *media_types: str, schema: Node | None = None, headers: Node | None = None) -> Node:
    described: Node = {"description": text}
    if media_types:
        described["content"] = content(*media_types, schema=schema)
    return described | ({"headers": headers} if headers else {})


def header(text: str) -> Node:
    return {"description": text, "schema": {"type": "string"}}


def parameter(name: str, place: str, text: str, schema: Node | None = None) -> Node:
    found = {"name": name, "in": place, "description": text, "schema": schema or {"type": "string"}}
    return found | ({"required": True} if place == "path" else {})


def operation(tag: str, name: str, summary: str, responses: Node, **fields: Any) -> Node:
    return {"tags": [tag], "operationId": name, "summary": summary, "responses": responses} | fields


def media_body(*schemas: str) -> Node:
    """Return the request body of a video, or of JSON in one of several schemas."""
    raw: Node = {one: {} for one in ("video/*", "application/mp4", "application/octet-stream")}
    return {"required": True, "content": content(JSON, schema={"anyOf": [ref(one) for one in schemas]}) | raw}


OPTIONS = parameter(
    "X-Amzn-SageMaker-Custom-Attributes", "header", "Options as a JSON object, if the body is a video or lacks them"
)
ACCEPT = parameter("Accept", "header", "Media types of the answer; the one with the highest q is sent")
JOB_ID = parameter("id", "path", "The job's id", {"type": "string", "pattern": "^[0-9a-f]{32}$"})
RANGE = parameter("Range", "header", "Bytes to be sent, such as bytes=0-999")
INFERENCE = success(
    "The transcript, the videos or the visemes", JSON, NDJSON, TEXT, TSV, VTT, SRT, MP4, schema=ref("Answer")
)
MODEL_ERROR = success("The container's error as SageMaker Runtime passes it on", JSON)
SHOWN_JOB = success("The job", JSON, schema=ref("Job"))
QUEUED_JOB = success("The job is queued", JSON, schema=ref("Job"), headers={"Location": header("Its URL")})
SAME_JOB = success("The job that was submitted with this Idempotency-Key before", JSON, schema=ref("Job"))
FILE_ANSWERS = {
    "200": success("The file", MP4, TEXT, VTT, SRT, JSON, headers={"ETag": header("SHA-256 of the file, in quotes")}),
    "206": success(
        "The range", MP4, TEXT, VTT, SRT, JSON, headers={"Content-Range": header("The bytes that are sent")}
    ),
    "304": success("The caller has this file: If-None-Match"),
    "307": success("The file is in S3", headers={"Location": header("A presigned URL")}),
}
OPENED_SESSION = success(
    "The answer to the offer, with all candidates of the server",
    SDP,
    headers={
        "Location": header("The session's URL: PATCH adds candidates, DELETE ends it"),
        "ETag": header("Of the session, for If-Match"),
        "Link": header('A STUN or TURN server (rel="ice-server") of VISEME_ICE_SERVERS'),
    },
)
PATHS: Node = {
    "/invocations": {
        "post": operation(
            "inference",
            "invoke",
            "Read lips in a video, move a face's lips to audio, or estimate the visemes of audio",
            answers({"200": INFERENCE}, WORK_ERRORS),
            parameters=[OPTIONS, ACCEPT],
            requestBody=media_body("ReadRequest", "SyncRequest", "VisemeRequest"),
        )
    },
    "/v1/audio/transcriptions": {
        "post": operation(
            "inference",
            "transcribe",
            "Read lips, in OpenAI's form",
            answers({"200": success("The transcript", JSON, TEXT, SRT, VTT)}, WORK_ERRORS),
            requestBody={
                "required": True,
                "content": {"multipart/form-data": {"schema": ref("TranscriptionForm")}},
            },
        )
    },
    "/v1/visemes": {
        "post": operation(
            "inference",
            "estimateVisemes",
            "Estimate the visemes of speech, with their times, and blendshapes of ARKit",
            answers({"200": success("The visemes", JSON, TSV, SRT, schema=ref("VisemeAnswer"))}, WORK_ERRORS),
            parameters=[ACCEPT],
            requestBody={
                "required": True,
                "content": {
                    **content(JSON, schema=ref("VisemeRequest")),
                    "multipart/form-data": {"schema": ref("VisemeForm")},
                    **{one: {} for one in ("audio/*", "video/*", "application/octet-stream")},
                },
            },
        )
    },
    "/api/generate": {
        "post": operation(
            "inference",
            "generate",
            "Move the lips of an image to audio",
            answers({"200": success("The video", JSON, MP4, schema=ref("GenerateAnswer"))}, WORK_ERRORS),
            parameters=[OPTIONS, ACCEPT],
            requestBody={"required": True, "content": content(JSON, schema=ref("GenerateRequest"))},
        )
    },
    "/v1/speech": {
        "post": operation(
            "inference",
            "speak",
            "Speak a text, with espeak-ng or Kokoro",
            answers(
                {"200": success("The speech, 16-bit mono", WAV)}, (400, 403, 408, 413, 415, 429, 500, 501, 503, 504)
            ),
            requestBody={"required": True, "content": content(JSON, schema=ref("SpeechRequest"))},
        ),
        "get": operation(
            "inference",
            "getSpeechOptions",
            "Show whether texts can be spoken, and in which languages",
            answers({"200": success("The options", JSON, schema=ref("SpeechOptions"))}, (403,)),
        ),
    },
    "/v1/jobs": {
        "post": operation(
            "jobs",
            "submitJob",
            "Submit a job; it is on the disk when this is answered",
            answers(
                {"202": QUEUED_JOB, "200": SAME_JOB},
                (400, 403, 408, 409, 413, 415, 429, 500, 502, 503),
            ),
            parameters=[
                parameter(
                    "Idempotency-Key",
                    "header",
                    "The same key and request are the same job",
                    {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
                ),
                OPTIONS,
                parameter("X-Webhook-Url", "header", "Where the end is reported, if the body is not JSON"),
                parameter("X-Webhook-Events", "header", f"Which of {', '.join(EVENT_TYPES)}, separated by commas"),
            ],
            requestBody=media_body("ReadJobRequest", "SyncJobRequest"),
        ),
        "get": operation(
            "jobs",
            "listJobs",
            "List your jobs, the newest first",
            answers({"200": success("A page of jobs", JSON, schema=ref("JobPage"))}, (400, 403, 500, 502)),
            parameters=[
                parameter(
                    "limit",
                    "query",
                    "Jobs per page",
                    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                ),
                parameter("cursor", "query", "The next_cursor of the page before"),
                parameter("state", "query", "Only jobs in this state", ref("JobState")),
            ],
        ),
    },
    "/v1/jobs/{id}": {
        "parameters": [JOB_ID],
        "get": operation("jobs", "getJob", "Show a job", answers({"200": SHOWN_JOB}, JOB_ERRORS)),
        "delete": operation(
            "jobs", "cancelJob", "Cancel a job; a finished one stays as it is", answers({"200": SHOWN_JOB}, JOB_ERRORS)
        ),
    },
    "/v1/jobs/{id}/events": {
        "parameters": [JOB_ID],
        "get": operation(
            "jobs",
            "streamJobEvents",
            "Stream a job's events until its end: state, progress and words",
            answers(
                {
                    "200": success("Server-sent events", EVENTS),
                    "204": success("The job has ended, and nothing follows"),
                },
                (400, *JOB_ERRORS, 503),
            ),
            parameters=[parameter("Last-Event-ID", "header", "Only later events")],
        ),
    },
    "/v1/jobs/{id}/outputs/{name}": {
        "parameters": [JOB_ID, parameter("name", "path", "The output's name")],
        "get": operation(
            "jobs",
            "getJobOutput",
            "Download an output",
            answers(FILE_ANSWERS, (*JOB_ERRORS, 416)),
            parameters=[RANGE, parameter("If-None-Match", "header", "ETags of files that the caller has")],
        ),
    },
    "/v1/jobs/{id}/logs/{attempt}": {
        "parameters": [JOB_ID, parameter("attempt", "path", "The attempt's number", {"type": "integer", "minimum": 1})],
        "get": operation(
            "jobs",
            "getJobLog",
            "Download the log of an attempt; of one that runs, as it was at most 10 seconds ago",
            answers({"200": success("The log", TEXT), "307": FILE_ANSWERS["307"]}, JOB_ERRORS),
            parameters=[RANGE],
        ),
    },
    "/v1/avatars": {
        "get": operation(
            "live",
            "listAvatars",
            "List the avatars",
            answers({"200": success("The avatars", JSON, schema=ref("Avatars"))}, (403, 500, 503)),
        )
    },
    "/v1/avatars/{name}/whep": {
        "post": operation(
            "live",
            "openWebRtcSession",
            "Open a live session over WebRTC (WHEP)",
            answers({"201": OPENED_SESSION}, WHEP_ERRORS),
            parameters=[
                parameter("name", "path", "The avatar's name"),
                parameter(
                    "sample_rate", "query", "Rate of the audio that is sent by messages, in Hz", {"type": "integer"}
                ),
                parameter("visemes", "query", "1: send the visemes of each frame of speech", {"enum": ["0", "1"]}),
            ],
            requestBody={"required": True, "content": content(SDP)},
        )
    },
    "/v1/avatars/{name}/whep/{session}": {
        "parameters": [
            parameter("name", "path", "The avatar's name"),
            parameter("session", "path", "The session's id, as in the Location of its response"),
        ],
        "patch": operation(
            "live",
            "addWebRtcCandidates",
            "Add ICE candidates to a session",
            answers({"204": success("They are added")}, (400, 403, 404, 408, 412, 413, 415, 500, 503)),
            parameters=[parameter("If-Match", "header", "The session's ETag")],
            requestBody={"required": True, "content": content(ICE_FRAGMENT)},
        ),
        "delete": operation(
            "live",
            "endWebRtcSession",
            "End a session",
            answers({"200": success("It has ended")}, (403, 404, 500, 503)),
        ),
    },
    "/v1/avatars/{name}/background/{index}": {
        "get": operation(
            "live",
            "getBackground",
            "Get a frame of an avatar's source video",
            answers(
                {"200": success("The frame", JPEG, "image/webp"), "304": success("The caller has it")},
                (400, 403, 404, 503),
            ),
            parameters=[
                parameter("name", "path", "The avatar's name"),
                parameter("index", "path", "Index of the frame", {"type": "integer", "minimum": 0}),
                parameter(
                    "alpha", "query", "1: WebP without the background, of an avatar with mattes", {"enum": ["0", "1"]}
                ),
            ],
        )
    },
    "/ping": {
        "get": operation(
            "status",
            "ping",
            "Check whether the models are loaded and a worker is alive",
            {"200": success("They are"), "503": success("They are not, or the server goes down")},
        )
    },
    "/health": {
        "get": operation(
            "status",
            "getHealth",
            "Show what the server runs with",
            answers({"200": success("Device, precision, weights and versions", JSON)}, (403,)),
        )
    },
    "/metrics": {
        "get": operation(
            "status", "getMetrics", "Metrics for Prometheus", answers({"200": success("Metrics", TEXT)}, (403,))
        )
    },
    "/": {
        "get": operation(
            "pages",
            "getPage",
            "The page: lip reading, lip sync, live avatars, jobs",
            {"200": success("The page", HTML)},
        )
    },
    "/web/{name}": {
        "get": operation(
            "pages",
            "getPageFile",
            "A script or the style sheet of the page",
            {"200": success("The file", JAVASCRIPT, CSS), "404": {"description": "The page has no such file"}},
            parameters=[parameter("name", "path", "Name of the file")],
        ),
    },
    "/web/views/{name}": {
        "get": operation(
            "pages",
            "getPageView",
            "The script of one view of the page",
            {"200": success("The script", JAVASCRIPT), "404": {"description": "The page has no such view"}},
            parameters=[parameter("name", "path", "Name of the file")],
        ),
    },
    "/docs": {
        "get": operation("pages", "getDocs", "The page that shows this document", {"200": success("The page", HTML)})
    },
    "/docs.js": {
        "get": operation("pages", "getDocsScript", "Its script", {"200": success("The script", JAVASCRIPT)}),
    },
    OPENAPI_PATH: {"get": operation("pages", "getOpenApi", "This document", {"200": success("The document", JSON)})},
    "/endpoints/{name}/invocations": {
        "post": operation(
            "aws",
            "invokeEndpoint",
            "Do as POST /invocations does, in the form of InvokeEndpoint",
            {"200": INFERENCE, "424": MODEL_ERROR},
            parameters=[parameter("name", "path", "Any name"), OPTIONS, ACCEPT],
            requestBody=media_body("ReadRequest", "SyncRequest", "VisemeRequest"),
        )
    },
    "/endpoints/{name}/invocations-response-stream": {
        "post": operation(
            "aws",
            "invokeEndpointWithResponseStream",
            "Do as POST /invocations does, in the form of InvokeEndpointWithResponseStream",
            {"200": success("A stream of events", "application/vnd.amazon.eventstream"), "424": MODEL_ERROR},
            parameters=[parameter("name", "path", "Any name"), OPTIONS],
            requestBody=media_body("ReadRequest", "SyncRequest", "VisemeRequest"),
        )
    },
}


def make_schemas() -> Node:
    """Return the schemas: of requests as they are validated, of answers as they are made."""
    models, common = models_json_schema(
        [(model, "validation") for model in (ReadBody, SyncBody, GenerateBody, SpeechRequest, VisemeBody)],
        ref_template=f"{REF}{{model}}",
    )
    definitions: Node = common.get("$defs", {})
    by_name = {model.__name__: definitions.pop(model.__name__) for model, _ in models}
    return definitions | {
        "ReadRequest": without_urls(by_name["ReadBody"], "ReadRequest"),
        "SyncRequest": without_urls(by_name["SyncBody"], "SyncRequest"),
        "GenerateRequest": by_name["GenerateBody"] | {"title": "GenerateRequest"},
        "SpeechRequest": by_name["SpeechRequest"],
        "VisemeRequest": by_name["VisemeBody"] | {"title": "VisemeRequest"},
        "ReadJobRequest": with_webhook(by_name["ReadBody"], "ReadJobRequest"),
        "SyncJobRequest": with_webhook(by_name["SyncBody"], "SyncJobRequest"),
        **ANSWER_SCHEMAS,
    }


def without_urls(schema: Node, title: str) -> Node:
    """Return a schema without the fields that only jobs have."""
    kept = {name: one for name, one in schema["properties"].items() if not name.endswith(("_url", "_urls"))}
    return schema | {"title": title, "properties": kept}


def with_webhook(schema: Node, title: str) -> Node:
    """Return a schema with the fields that jobs have besides."""
    url = {"type": "string", "format": "uri", "description": "Where the end of the job is reported"}
    events = {"type": "array", "items": {"enum": list(EVENT_TYPES)}, "description": "Which ends; by default all"}
    return schema | {
        "title": title,
        "properties": schema["properties"] | {"webhook_url": url, "webhook_events": events},
    }


def nullable(kind: str, **fields: Any) -> Node:
    return {"type": [kind, "null"]} | fields


def record(**properties: Node) -> Node:
    """Return the schema of an object that has all of these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


TEXT_VALUE, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
TIME = nullable("string", format="date-time")
SHARE: Node = {"type": "number", "minimum": 0, "maximum": 1}
VISEME: Node = {
    "phoneme": TEXT_VALUE,
    "viseme": {"enum": list(OCULUS_VISEMES)},
    "weights": {"type": "array", "items": SHARE},
    "blendshapes": {"type": "array", "items": SHARE},
}
JOB_ERROR: Node = {"anyOf": [record(code=TEXT_VALUE, message=TEXT_VALUE, status=INTEGER), {"type": "null"}]}
SUMMARY: Node = {
    "id": TEXT_VALUE,
    "state": ref("JobState"),
    "progress": {"type": "integer", "minimum": 0, "maximum": 100, "description": "100 only if it succeeded"},
    "stage": TEXT_VALUE,
    "task": {
        "enum": ["lipread", "lipsync", "unknown"],
        "description": "unknown: JSON over 1 MiB beside its media, until a worker parses it",
    },
    "attempt": INTEGER,
    "error": JOB_ERROR,
    "created_at": TIME,
    "started_at": TIME,
    "finished_at": TIME,
    "retry_at": TIME,
    "expires_at": TIME,
    "urls": record(job=TEXT_VALUE, events=TEXT_VALUE),
}
ANSWER_SCHEMAS: Node = {
    "Error": record(status={"const": "error"}, error=record(code=TEXT_VALUE, message=TEXT_VALUE)),
    "Answer": {"type": "object", "properties": {"status": {"const": "success"}}, "required": ["status"]},
    "GenerateAnswer": record(status={"const": "success"}, video=TEXT_VALUE, num_frames=INTEGER, duration_s=NUMBER),
    "TranscriptionForm": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            "response_format": {"enum": list(FORMATS), "default": "json"},
            "timestamp_granularities[]": {"type": "array", "items": {"enum": list(GRANULARITIES)}},
        },
        "required": ["file"],
    },
    "SpeechOptions": record(
        available={"type": "boolean", "description": "Whether a text can be spoken"},
        synthesizer=TEXT_VALUE,
        voices={"type": "array", "items": TEXT_VALUE},
        languages={"type": "array", "items": TEXT_VALUE},
        rate=record(min=INTEGER, default=INTEGER, max=INTEGER),
        max_characters=INTEGER,
    ),
    "Avatars": {
        "type": "array",
        "items": record(
            name=TEXT_VALUE, frames=INTEGER, fps=NUMBER, width=INTEGER, height=INTEGER, alpha={"type": "boolean"}
        ),
    },
    "VisemeForm": record(file={"type": "string", "format": "binary"}),
    "VisemeAnswer": record(
        status={"const": "success"},
        visemes={"const": list(OCULUS_VISEMES), "description": "Names of the weights"},
        blendshapes={"const": list(BLENDSHAPES), "description": "Names of the blendshapes"},
        fps=INTEGER,
        look_ahead_ms=NUMBER,
        segments={"type": "array", "items": record(start=NUMBER, end=NUMBER, **VISEME)},
        frames={"type": "array", "items": record(time=NUMBER, **VISEME)},
        duration_s=NUMBER,
        model={"type": "object"},
        warnings={"type": "array", "items": TEXT_VALUE},
    ),
    "JobState": {"type": "string", "enum": [str(state) for state in JobState]},
    "JobSummary": record(**SUMMARY),
    "JobPage": record(jobs={"type": "array", "items": ref("JobSummary")}, next_cursor=nullable("string")),
    "JobOutput": record(
        name=TEXT_VALUE,
        state=ref("JobState"),
        url=nullable("string", description="Where it can be downloaded"),
        content_type=nullable("string"),
        size=nullable("integer", description="Bytes"),
        sha256=nullable("string"),
        s3_bucket=nullable("string"),
        s3_key=nullable("string"),
        s3_url=nullable("string"),
        details={"type": "object"},
        error=JOB_ERROR,
    ),
    "JobAttempt": record(
        number=INTEGER,
        worker=TEXT_VALUE,
        started_at=TIME,
        ended_at=TIME,
        outcome={"enum": [*(str(outcome) for outcome in AttemptOutcome), None]},
        error=JOB_ERROR,
        ram_peak_mib=nullable("number"),
        vram_peak_mib=nullable("number"),
        log_url=TEXT_VALUE,
    ),
    "Job": record(
        **SUMMARY,
        result=nullable("object", description="The answer of POST /invocations, without the videos"),
        outputs={"type": "array", "items": ref("JobOutput")},
        attempts={"type": "array", "items": ref("JobAttempt")},
        input_bytes=INTEGER,
        request_id=TEXT_VALUE,
        webhook_url=nullable("string"),
        webhook_events={"type": "array", "items": {"enum": list(EVENT_TYPES)}},
    ),
}
