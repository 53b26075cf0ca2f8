"""Entry file of the model archive: the functions that the stock images' hosting toolkits call.

It is not named inference.py, because the package `inference` beside it would be confused with it; the toolkit finds it
by SAGEMAKER_PROGRAM. It is packed into the archive and never imported by `deploy`.

Both toolkits turn every error into one status, 400 or 500, with a text. So errors do not leave these functions: they
are passed from one to the next as a `Failure`, and `output_fn` sets the status and body that Viseme's own server sends.
A failed load is worse (see `inference.multi_model_server`): it ends the server.
"""

from __future__ import annotations

import http
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from inference.multi_model_server import ending_server_on_failure

# Seconds that loading may take: as long as Multi Model Server waits for its worker, but no longer than SageMaker waits
# for a container to start.
TIMEOUT_S = min(float(os.environ.get("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS") or 900), 900)

# Bytes of an answer that Multi Model Server takes from its worker, and its own default (ConfigManager.java).
MAX_ANSWER_BYTES = int(os.environ.get("MMS_MAX_RESPONSE_SIZE") or 6_553_500)

with ending_server_on_failure(TIMEOUT_S):  # a package that is missing or broken is a failed load
    from inference import handler
    from inference.backends.device import describe_gpu
    from inference.engines import Engines, Prediction
    from inference.error_responses import Failure, failure_of
    from inference.errors import MediaTooLarge
    from inference.requests import Request, headers_of

ARCHIVE = Path(__file__).parents[1]
CONTENT_TYPE = "content-type"
T = TypeVar("T")


def model_fn(model_dir: str, context: Any = None) -> Engines:  # noqa: ARG001 - part of the contract
    """Load the models that the environment names, else those in the archive, and warm up.

    The archive is where this file is: if HF_MODEL_ID is set, Hugging Face's toolkit passes its copy of that repository
    as `model_dir` instead. Viseme does not use that copy: it is of the newest commit, and lacks what the archive has.
    Source: sagemaker-huggingface-inference-toolkit 2.6.0, mms_model_server.py, start_model_server.
    """
    with ending_server_on_failure(TIMEOUT_S):
        engines = handler.model_fn(str(ARCHIVE), context)
        log_ready(engines)
    return engines


def log_ready(engines: Engines) -> None:
    """Warm up and log versions, device and speed: the stock server has no /health."""
    status = engines.warm_up() | describe_gpu()
    sys.stderr.write(f"viseme is ready: {json.dumps(status)}\n")


def input_fn(body: Any, content_type: str, context: Any = None) -> Request | Failure:
    """Validate a request. multi-model-server passes the body as bytes, bytearray, text or parsed JSON."""
    if isinstance(body, bytearray):
        body = bytes(body)
    elif not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return attempt(context, handler.input_fn, body, content_type, context)


def predict_fn(data: Request | Failure, model: Engines, context: Any = None) -> Prediction | Failure:
    """Process the request."""
    return data if isinstance(data, Failure) else attempt(context, handler.predict_fn, data, model, context)


def output_fn(prediction: Prediction | Failure, accept: str, context: Any = None) -> bytes:
    """Return the body alone: Hugging Face's toolkit sends it unchanged."""
    if not isinstance(prediction, Failure):
        # The toolkit's own value is `*/*` replaced by JSON.
        accept = headers_of(context).get("accept", accept)
        encoded = attempt(context, encode, prediction, accept, context)
        if not isinstance(encoded, Failure):
            body, content_type = encoded
            set_headers(context, {CONTENT_TYPE: content_type})
            return body
        prediction = encoded
    context.set_response_status(prediction.status, phrase_of(prediction.status), 0)
    set_headers(context, prediction.headers())
    return prediction.body()


def encode(prediction: Prediction, accept: str, context: Any) -> tuple[bytes, str]:
    """Return the answer and its media type.

    Raises: MediaTooLarge if the server could not take it: its worker would die, and load the models again.
    """
    body, content_type = handler.output_fn(prediction, accept, context)
    if len(body) > MAX_ANSWER_BYTES:
        raise MediaTooLarge(
            f"the answer has {len(body)} bytes; expected at most {MAX_ANSWER_BYTES}; for larger ones use an "
            'asynchronous endpoint, or "s3_output_prefix"'
        )
    return body, content_type


def attempt(context: Any, function: Callable[..., T], *arguments: Any) -> T | Failure:
    """Return what a function returns, or the failure that the caller receives; log what is not the caller's fault.

    Raises: the function's error if there is no context to carry the status.
    """
    try:
        return function(*arguments)
    except Exception as err:
        failure = failure_of(err)
        if context is None:
            raise
        if failure.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            sys.stderr.write(f"{traceback.format_exc()}viseme: request failed: {failure.code}\n")
        return failure


def phrase_of(status: int) -> str:
    """Return the reason phrase of a status; empty if it has none."""
    return http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""


class ResponseHeaders:
    """A request's processor in multi-model-server, whose content type stays as set here.

    The toolkits set it to the caller's Accept header after `output_fn`, also if that is a list or the answer an error.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def add_response_property(self, key: str, value: str) -> None:
        if key.lower() != CONTENT_TYPE:
            self._processor.add_response_property(key, value)


def set_headers(context: Any, headers: dict[str, str]) -> None:
    """Set response headers. The content type is set for good."""
    processors = getattr(context, "request_processor", None)
    if not processors or not hasattr(processors[0], "add_response_property"):
        return
    for name, value in headers.items():
        processors[0].add_response_property(name, value)
    processors[0] = ResponseHeaders(processors[0])
