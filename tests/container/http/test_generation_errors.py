"""Errors in the form of sync.so's API."""

from __future__ import annotations

import json

import pytest

from container.http.generation_errors import ERROR_CODES, error_body, generation_error, not_offered
from inference.error_responses import INTERNAL, STATUSES, Failure

NO_CODE = {
    "access_denied",
    "avatar_not_found",
    "canceled",
    "precondition_failed",
    "session_not_found",
    "webrtc_unavailable",
}  # a wrong key has no code there, and the others do not occur


def test_paths_of_generations_have_the_form_of_sync_so():
    failure = Failure(429, "rate_limited", "too often")
    assert json.loads(error_body(failure, "/v2/generate")) == {
        "message": "too often",
        "error": "Too Many Requests",
        "statusCode": 429,
        "errorCode": "rate_limit_exceeded",
    }
    assert error_body(failure, "/v1/jobs") == failure.body()


def test_a_wrong_key_has_no_code():
    assert "errorCode" not in json.loads(generation_error(Failure(401, "access_denied", "expected the key")))


def test_a_more_precise_code_is_sent():
    body = generation_error(Failure(400, "invalid_request", "no"), "generation_unsupported_model")
    assert json.loads(body)["errorCode"] == "generation_unsupported_model"


def test_every_code_of_ours_has_one_of_sync_so():
    assert {code for _, _, code in STATUSES} | {INTERNAL[1]} <= set(ERROR_CODES) | NO_CODE


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v2/assets", "assets"),
        ("/v2/batch/1", "batches"),
        ("/v2/analyze/cost", "cost"),
        ("/v2/generations/count", "counts"),
    ],
)
def test_what_is_not_offered_is_named(path: str, word: str):
    assert word in (not_offered(path) or "")


def test_other_paths_are_not_named():
    assert not_offered("/v2/assetsandmore") is None
    assert not_offered("/v1/assets") is None
