"""What hosting toolkits run in the model archive: SageMaker's contract, as the stock images keep it.

Not called inference.py, which the package `inference` beside it would be mistaken for; SAGEMAKER_PROGRAM
names it. It travels in the archive and is never imported by `deploy`.
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

DATA_DIR = "VISEME_DATA_DIR"


def model_fn(model_dir: str, context: Any = None) -> Engines:
    """Load the archive's weights and its face models; nothing is fetched."""
    os.environ.setdefault(DATA_DIR, str(Path(model_dir) / "data"))
    engines = handler.model_fn(model_dir, context)
    report(engines)
    return engines


def report(engines: Engines) -> None:
    """Warm up, and say in the log what runs here: the stock server has no /health."""
    found = engines.measure() | describe_gpu()
    sys.stderr.write(f"viseme is ready: {json.dumps(found)}\n")


def input_fn(body: Any, content_type: str, context: Any = None) -> Request:
    """Validate a request; multi-model-server hands bodies over as it likes: bytes, bytearray, text, parsed JSON."""
    if isinstance(body, bytearray):
        body = bytes(body)
    elif not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return handler.input_fn(body, content_type, context)


def predict_fn(data: Request, model: Engines, context: Any = None) -> Prediction:
    """Do what was asked."""
    return handler.predict_fn(data, model, context)


def output_fn(prediction: Prediction, accept: str, context: Any = None) -> bytes:
    """The answer alone: Hugging Face's toolkit sends on what it gets, and knows the content type by `accept`."""
    answer, _ = handler.output_fn(prediction, accept, context)
    return answer
