"""Errors in the form of sync.so's API, which every path under /v2/ has: {message, error, statusCode, errorCode}.

Source: the class GenerationError of the PyPI package syncsdk 0.3.0; the codes are those that sync.so documents at
https://sync.so/docs/developer-guides/error-handling, but for `IDEMPOTENCY_KEY_REUSED`, of which it names the prefix.
"""

from __future__ import annotations

import json
from http.client import responses

from inference.error_responses import Failure
from inference.errors import InvalidRequest

PREFIX = "/v2/"
INVALID_INPUT = "generation_input_validation_failed"
# Codes of sync.so for our stable codes; others have none.
ERROR_CODES = {
    "invalid_request": INVALID_INPUT,
    "unsupported_content_type": INVALID_INPUT,
    "unsupported_media": INVALID_INPUT,
    "media_too_large": INVALID_INPUT,
    "object_not_found": INVALID_INPUT,
    "no_face_found": "generation_input_video_invalid",
    "no_audio": "generation_input_audio_invalid",
    "deadline_exceeded": "generation_timeout",
    "worker_died": "generation_pipeline_failed",
    "internal_error": "generation_unknown_error",
    "storage_unavailable": "generation_infra_storage_error",
    "storage_full": "generation_infra_storage_error",
    "overloaded": "generation_infra_resource_exhausted",
    "out_of_memory": "generation_infra_resource_exhausted",
    "not_ready": "generation_infra_service_unavailable",
    "speech_unavailable": "generation_infra_service_unavailable",
    "job_not_found": "generation_not_found",
    "rate_limited": "rate_limit_exceeded",
    "idempotency_conflict": "IDEMPOTENCY_KEY_REUSED",
}
NOT_OFFERED = {
    "/v2/assets": "assets are not offered; expected media by url, or as files of a form",
    "/v2/batch": "batches are not offered; submit each generation",
    "/v2/analyze": "estimates of the cost are not offered: generations cost nothing here",
    "/v2/generations/count": "counts are not offered; GET /v2/generations lists",
    "/v2/voices": "voices are not offered: audio is an input",
    "/v2/projects": "projects are not offered",
    "/v2/organizations": "organizations are not offered; VISEME_WEBHOOK_SECRET is the secret of webhooks",
    "/v2/errors": "the list of errors is not offered",
}


class GenerationRejected(InvalidRequest):
    """A generation that is not accepted, with the code of sync.so that says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_body(failure: Failure, path: str) -> bytes:
    """Return the body of an error: in sync.so's form for a path under /v2/, else in our own."""
    return generation_error(failure) if path.startswith(PREFIX) else failure.body()


def generation_error(failure: Failure, code: str | None = None) -> bytes:
    """Return the body of an error in sync.so's form. code: of sync.so, if one is more precise than the failure's."""
    fields = {
        "message": failure.message,
        "error": responses.get(failure.status),
        "statusCode": failure.status,
        "errorCode": code or ERROR_CODES.get(failure.code),
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def not_offered(path: str) -> str | None:
    """Return why a path of sync.so's API is not served; None if sync.so has no such path."""
    return next((text for one, text in NOT_OFFERED.items() if path == one or path.startswith(f"{one}/")), None)
