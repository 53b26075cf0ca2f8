"""SageMaker's handler contract: four functions, nothing else.

`context` is the object of the hosting toolkit; the request headers come from it (`get_all_request_header(0)`).
"""

from __future__ import annotations

from typing import Any

from inference.engines import Engines, Prediction
from inference.requests import AcceptHeader, Request, headers_of, parse_request


def model_fn(model_dir: str | None, context: Any = None) -> Engines:  # noqa: ARG001 - part of the contract
    """Load the models: weights in `model_dir`, else those of HF_MODEL_ID, else the bundled ones.

    Raises: WeightsNotFound, WrongWeights, DeviceUnavailable (there is no silent fallback).
    """
    return Engines.from_env(model_dir)


def input_fn(body: bytes | str, content_type: str | None, context: Any = None) -> Request:
    """Parse and validate a request.

    Raises: InvalidRequest, UnsupportedContentType.
    """
    return parse_request(body, content_type, headers_of(context))


def predict_fn(data: Request, model: Engines, context: Any = None) -> Prediction:
    """Run a request, unless its answer could not be sent in a type that the caller accepts.

    Raises: UnsupportedContentType; CallerError and its other subclasses if the caller can correct it, other
    VisemeErrors if not.
    """
    data.choose_type(AcceptHeader.parse(headers_of(context).get("accept")))
    return model.run(data)


def output_fn(prediction: Prediction, accept: str | None, context: Any = None) -> tuple[bytes, str]:  # noqa: ARG001
    """Return the encoded answer and its media type.

    Raises: UnsupportedContentType.
    """
    answer = prediction.encode(AcceptHeader.parse(accept).choose(prediction.media_types))
    return answer.read(), answer.content_type
