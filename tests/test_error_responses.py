"""How errors become statuses and bodies, the same in Viseme's server and under SageMaker's toolkits."""

from __future__ import annotations

import json

import pytest
import torch

from inference import errors
from inference.error_responses import failure_of


@pytest.mark.parametrize(
    ("err", "status", "code"),
    [
        (errors.UnsupportedContentType("text/html"), 415, "unsupported_content_type"),
        (errors.InvalidRequest("face"), 400, "invalid_request"),
        (errors.NoFaceFound("none"), 400, "no_face_found"),
        (errors.MediaNotFound("clip.mp4"), 404, "object_not_found"),
        (errors.StorageError("S3"), 502, "storage_unavailable"),
        (errors.DeadlineExceeded("60 s"), 504, "deadline_exceeded"),
        (errors.Overloaded("full"), 503, "overloaded"),
        (errors.SpeechUnavailable("espeak-ng"), 501, "speech_unavailable"),
        (errors.WebRtcUnavailable("aiortc"), 501, "webrtc_unavailable"),
        (errors.SessionNotFound("it has ended"), 404, "session_not_found"),
        (errors.PreconditionFailed("If-Match"), 412, "precondition_failed"),
    ],
)
def test_a_known_error_keeps_its_message(err: errors.VisemeError, status: int, code: str):
    failure = failure_of(err)
    assert (failure.status, failure.code, failure.message) == (status, code, str(err))
    assert json.loads(failure.body()) == {"status": "error", "error": {"code": code, "message": str(err)}}
    assert failure.headers().get("retry-after") == ("5" if status == 503 else None)


def test_an_unexpected_error_reveals_nothing():
    failure = failure_of(RuntimeError("/secret/path"))
    assert (failure.status, failure.code) == (500, "internal_error")
    assert "secret" not in failure.message


@pytest.mark.parametrize("err", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")])
def test_memory_of_the_machine_and_of_the_gpu(err: BaseException):
    failure = failure_of(err)
    assert (failure.status, failure.code) == (507, "out_of_memory")
    assert failure.message == "the request needs more memory than there is"
