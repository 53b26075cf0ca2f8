"""SageMaker's contract: four functions, nothing else.

`context` is what the toolkit of the hosting container hands over, or our own server's; the request's
headers come from it (`get_all_request_header(0)`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference.engines import Engines, Prediction, headers_of, hooks_of
from inference.requests import Request, SyncRequest, choose_answer, parse_request
from inference.settings import Settings


def model_fn(model_dir: str | None, context: Any = None) -> Engines:  # noqa: ARG001 - the contract's
    """Load the models: weights found in `model_dir`, else those of HF_MODEL_ID, else the starter.

    Raises: WeightsNotFound, WrongWeights, DeviceUnavailable (never falls back in silence).
    """
    settings = Settings.from_env()
    if model_dir:
        settings = settings.model_copy(update={"model_dir": Path(model_dir)})
    return Engines.load(settings)


def input_fn(body: bytes | str, content_type: str | None, context: Any = None) -> Request:
    """Validate a request.

    Raises: InvalidRequest, UnsupportedContentType.
    """
    return parse_request(body, content_type, headers_of(context))


def predict_fn(data: Request, model: Engines, context: Any = None) -> Prediction:
    """Do what was asked.

    Raises: CallerError and below for what the caller can mend, other VisemeErrors for what they can't.
    """
    if isinstance(data, SyncRequest):
        data.check_answer(choose_answer(headers_of(context).get("accept"), data.answers))
    return model.run(data, hooks_of(context))


def output_fn(prediction: Prediction, accept: str | None, context: Any = None) -> tuple[bytes, str]:  # noqa: ARG001
    """The answer in the form asked for, and its content type.

    Raises: UnsupportedContentType.
    """
    form = choose_answer(accept, prediction.answers)
    return prediction.encode(form), form
