"""Run by a test as a hosting container would run an unpacked archive: requests as JSON on stdin, answers on stdout.

Argument: the model's folder. A request: {"body", "content_type", "accept", "as": "bytes" | "bytearray"},
the body in base64.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path


class Context:
    """What multi-model-server hands its toolkit."""

    def __init__(self, model_dir: str) -> None:
        self.system_properties = {"model_dir": model_dir}
        self.request_processor = [self]
        self.headers: dict[str, str] = {}
        self.status = 200

    def get_request_properties(self) -> dict[str, str]:
        return self.headers

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers

    def set_response_status(self, code: int, phrase: str = "", idx: int = 0) -> None:
        self.status = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_type = value


def main() -> None:
    from sagemaker_inference.transformer import Transformer

    context = Context(sys.argv[1])
    transformer = Transformer()
    answers = []
    for request in json.load(sys.stdin):
        context.headers = {"Content-Type": request["content_type"], "Accept": request["accept"]}
        body = base64.b64decode(request["body"])
        (answer,) = transformer.transform(
            [{"body": bytearray(body) if request["as"] == "bytearray" else body}], context
        )
        kind, text = type(answer).__name__, answer.decode() if isinstance(answer, bytes) else answer
        answers.append({"status": context.status, "type": context.content_type, "kind": kind, "answer": text})
    import inference

    json.dump({"answers": answers, "path": sys.path, "inference": str(Path(inference.__file__))}, sys.stdout)
    transformer._model.close()


if __name__ == "__main__":
    main()
