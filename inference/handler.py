"""SageMaker's handler contract: four functions, nothing else.

`context` is the object of the hosting toolkit; the request headers come from it (`get_all_request_header(0)`).
"""

from __future__ import annotations

from typing import Any

from inference.engines import Engines, Prediction
from inference.engines.callbacks import RequestCallbacks
from inference.requests import ANSWER_TYPES, AcceptHeader, Request, headers_of, parse_request
from inference.requests.deadlines import deadlines_of


def model_fn(model_dir: str | None, context: Any = None) -> Engines:  # noqa: ARG001 - part of the contract
    """Load the models: those that the deployment names, else those in `model_dir`, else the bundled ones.

    Raises: WeightsNotFound, WrongWeights, DeviceUnavailable (there is no silent fallback).
    """
    return Engines.from_env(model_dir)


def input_fn(body: bytes | str, content_type: str | None, context: Any = None) -> Request:
    """Parse and validate a request.

    Raises: InvalidRequest; UnsupportedContentType, also if no answer is of a type that the caller accepts.
    """
    headers = headers_of(context)
    AcceptHeader.parse(headers.get("accept")).choose(ANSWER_TYPES)  # as Viseme's server, before the body is read
    return parse_request(body, content_type, headers)


def predict_fn(data: Request, model: Engines, context: Any = None) -> Prediction:
    """Run a request, unless its answer could not be sent in a type that the caller accepts.

    On SageMaker the request ends when its caller waits no longer; elsewhere it may take any time.
    Raises: UnsupportedContentType; CallerError and its other subclasses if the caller can correct it, other
    VisemeErrors if not.
    """
    headers = headers_of(context)
    data.choose_type(AcceptHeader.parse(headers.get("accept")))
    if not model.settings.on_sagemaker:
        return model.run(data)
    read_s, sync_s = deadlines_of(headers, model.settings)
    return model.run(data, RequestCallbacks.with_deadline(sync_s if data.uses_job_deadline else read_s))


def output_fn(prediction: Prediction, accept: str | None, context: Any = None) -> tuple[bytes, str]:  # noqa: ARG001
    """Return the encoded answer and its media type.

    Raises: UnsupportedContentType.
    """
    answer = prediction.encode(AcceptHeader.parse(accept).choose(prediction.media_types))
    return answer.read(), answer.content_type
