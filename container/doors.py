"""What each HTTP route asks of the engines; runs in the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from container.transcriptions import answer_transcription
from container.worker_main import Context, Job
from inference import handler
from inference.backends.device import describe_gpu
from inference.engines import Hooks
from inference.lip_reading import Word
from inference.requests import NDJSON, choose_answer

Check = Callable[[], None]
Send = Callable[[bytes], None]


class Doors:
    """The loaded engines behind every route."""

    def __init__(self, model_dir: str | None) -> None:
        self._engines = handler.model_fn(model_dir)

    def measure(self) -> dict[str, Any]:
        """What works here and on what it runs: for /health, and for the log's line on being ready."""
        return self._engines.measure() | describe_gpu()

    def close(self) -> None:
        self._engines.close()

    def answer(self, job: Job, check: Check, send: Send) -> tuple[bytes, str]:
        """The body and content type of the answer.

        check: called now and then; raises to end the job. send: takes parts of an answer that streams.
        """
        body, headers = job.body.read_bytes(), job.headers
        content_type = headers.get("content-type", "")
        if job.route == "transcriptions":
            return answer_transcription(body, content_type, self._engines, self._hooks(check, None))
        accept = headers.get("accept")
        streams = choose_answer(accept) == NDJSON
        context = Context(headers, self._hooks(check, send if streams else None))
        request = handler.input_fn(body, content_type, context)
        del body  # it may be large, and the request holds what is needed of it
        prediction = handler.predict_fn(request, self._engines, context)
        return handler.output_fn(prediction, accept, context)

    def _hooks(self, check: Check, send: Send | None) -> Hooks:
        def progress(_done_s: float, _total_s: float | None) -> None:
            check()

        def on_words(words: list[Word]) -> None:
            assert send is not None
            plain = [vars(word) for word in words]
            send(json.dumps({"status": "reading", "words": plain}).encode() + b"\n")

        return Hooks(progress, on_words if send is not None else None)
