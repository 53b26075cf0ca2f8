"""The mapping from errors to HTTP statuses and stable codes.

It is beside the engines because two servers use it: Viseme's own, and SageMaker's toolkits with the packed engines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from inference import errors

RETRY_AFTER_S = 5
STORAGE_RETRY_AFTER_S = 60  # space comes with the sweeps, which are a minute apart
INTERNAL = (500, "internal_error")

# Subclasses before their base classes.
STATUSES: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.UnsupportedContentType, 415, "unsupported_content_type"),
    (errors.InvalidRequest, 400, "invalid_request"),
    (errors.MediaNotFound, 404, "object_not_found"),
    (errors.AccessDenied, 403, "access_denied"),
    (errors.MediaTooLarge, 413, "media_too_large"),
    (errors.NoFaceFound, 400, "no_face_found"),
    (errors.NoAudio, 400, "no_audio"),
    (errors.MediaError, 400, "unsupported_media"),
    (errors.WeightsError, 400, "invalid_request"),
    (errors.AvatarNotFound, 404, "avatar_not_found"),
    (errors.SessionNotFound, 404, "session_not_found"),
    (errors.AvatarError, 400, "invalid_request"),
    (errors.PreconditionFailed, 412, "precondition_failed"),
    (errors.JobNotFound, 404, "job_not_found"),
    (errors.IdempotencyConflict, 409, "idempotency_conflict"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.StorageFull, 507, "storage_full"),
    (errors.RateLimited, 429, "rate_limited"),
    (errors.NotReady, 503, "not_ready"),
    (errors.BodyTimeout, 408, "deadline_exceeded"),
    (errors.DeadlineExceeded, 504, "deadline_exceeded"),
    (errors.Canceled, 499, "canceled"),  # only logged: the caller has disconnected
    (errors.WorkerDied, 500, "worker_died"),
    (errors.SpeechUnavailable, 501, "speech_unavailable"),
    (errors.WebRtcUnavailable, 501, "webrtc_unavailable"),
    (errors.OutOfMemory, 507, "out_of_memory"),
    (errors.StorageError, 502, "storage_unavailable"),
)


@dataclass(frozen=True)
class Failure:
    """An error as callers receive it."""

    status: int
    code: str
    message: str

    def body(self) -> bytes:
        return json.dumps({"status": "error", "error": {"code": self.code, "message": self.message}}).encode()

    def headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self.status == 503:
            headers["retry-after"] = str(RETRY_AFTER_S)
        elif self.code == "storage_full":
            headers["retry-after"] = str(STORAGE_RETRY_AFTER_S)
        return headers


def failure_of(err: BaseException) -> Failure:
    """Return the status, code and message of an error; an unexpected one reveals no details."""
    if is_out_of_memory(err):
        err = errors.OutOfMemory("the request needs more memory than there is")
    for kind, status, code in STATUSES:
        if isinstance(err, kind):
            return Failure(status, code, str(err))
    return Failure(*INTERNAL, "internal error; the server log has the details")


def is_out_of_memory(err: BaseException) -> bool:
    """Return whether an error is Python's MemoryError, or CUDA's, which is a RuntimeError of its own name."""
    return isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError"
