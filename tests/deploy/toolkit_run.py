"""Runs an unpacked archive as a hosting container would: requests as JSON on stdin, answers on stdout.

Arguments: the toolkit, "sagemaker" or "huggingface"; the model's folder.
A request: {"body", "content_type", "accept", "as": "bytes" | "bytearray"}, with the body in base64.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Context:
    """The context object that multi-model-server passes to its toolkit."""

    def __init__(self, model_dir: str) -> None:
        self.system_properties = {"model_dir": model_dir, "batch_size": 1, "gpu_id": None}
        self.request_processor = [self]
        self.headers: dict[str, str] = {}
        self.status = 200
        self.metrics = self

    def add_time(self, name: str, value: float) -> None:
        """Ignore the durations that Hugging Face's toolkit reports."""

    def get_request_properties(self) -> dict[str, str]:
        return self.headers

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers

    def set_response_status(self, code: int, phrase: str = "", idx: int = 0) -> None:
        self.status = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_type = value


def load(toolkit: str) -> tuple[Callable[[list, Context], list], Callable[[], Any]]:
    """Return the toolkit's request function, and a function that returns the loaded model."""
    if toolkit == "huggingface":
        from sagemaker_huggingface_inference_toolkit.handler_service import HuggingFaceHandlerService

        service = HuggingFaceHandlerService()
        return lambda data, context: answer_as_server(service, data, context), lambda: service.model
    from sagemaker_inference.transformer import Transformer

    transformer = Transformer()
    return transformer.transform, lambda: transformer._model


def answer_as_server(service: Any, data: list, context: Context) -> list:
    """Handle a request, turning a toolkit error into an answer as multi-model-server does."""
    from mms.service import PredictionException

    try:
        return service.handle(data, context)
    except PredictionException as err:
        context.status = err.error_code
        return [err.message]


def main() -> None:
    context = Context(sys.argv[2])
    handle, model = load(sys.argv[1])
    answers = []
    for request in json.load(sys.stdin):
        context.headers = {"Content-Type": request["content_type"], "Accept": request["accept"]}
        body = base64.b64decode(request["body"])
        (answer,) = handle([{"body": bytearray(body) if request["as"] == "bytearray" else body}], context)
        kind, text = type(answer).__name__, answer.decode() if isinstance(answer, bytes) else answer
        answers.append({"status": context.status, "type": context.content_type, "kind": kind, "answer": text})
    import inference

    json.dump({"answers": answers, "path": sys.path, "inference": str(Path(inference.__file__))}, sys.stdout)
    model().close()


if __name__ == "__main__":
    main()
