"""Entry file of the model archive: the functions that the stock images' hosting toolkits call.

It is not named inference.py, because the package `inference` beside it would be confused with it; the toolkit finds it
by SAGEMAKER_PROGRAM. It is packed into the archive and never imported by `deploy`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from inference import handler
from inference.backends.device import describe_gpu
from inference.engines import Engines, Prediction
from inference.requests import Request

DATA_DIR_VARIABLE = "VISEME_DATA_DIR"


def model_fn(model_dir: str, context: Any = None) -> Engines:
    """Load the archive's weights and face models without fetching anything."""
    os.environ.setdefault(DATA_DIR_VARIABLE, str(Path(model_dir) / "data"))
    engines = handler.model_fn(model_dir, context)
    log_ready(engines)
    return engines


def log_ready(engines: Engines) -> None:
    """Warm up and log versions, device and speed: the stock server has no /health."""
    status = engines.warm_up() | describe_gpu()
    sys.stderr.write(f"viseme is ready: {json.dumps(status)}\n")


def input_fn(body: Any, content_type: str, context: Any = None) -> Request:
    """Validate a request. multi-model-server passes the body as bytes, bytearray, text or parsed JSON."""
    if isinstance(body, bytearray):
        body = bytes(body)
    elif not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return handler.input_fn(body, content_type, context)


def predict_fn(data: Request, model: Engines, context: Any = None) -> Prediction:
    """Process the request."""
    return handler.predict_fn(data, model, context)


def output_fn(prediction: Prediction, accept: str, context: Any = None) -> bytes:
    """Return the body alone: Hugging Face's toolkit sends it unchanged and takes the content type from `accept`."""
    answer, _ = handler.output_fn(prediction, accept, context)
    return answer
