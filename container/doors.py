"""What each HTTP route asks of the engines; runs in the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from container.transcriptions import answer_transcription
from container.worker_main import Context, Job
from inference import handler
from inference.backends.device import describe_gpu
from inference.engines import Hooks, Synced
from inference.lip_reading import Word
from inference.requests import JSON, MP4, NDJSON, Request, SyncRequest, choose_answer, parse_generation

Check = Callable[[], None]
Send = Callable[[tuple[Any, ...]], None]
ANSWER_S, ANSWER_SHARE = 1.0, 0.05  # of the time left: kept for saying that it was too short


class Doors:
    """The loaded engines behind every route."""

    def __init__(self, model_dir: str | None) -> None:
        self._engines = handler.model_fn(model_dir)

    def measure(self) -> dict[str, Any]:
        """What works here and on what it runs: for /health, and for the log's line on being ready."""
        return self._engines.measure() | describe_gpu()

    def close(self) -> None:
        self._engines.close()

    def answer(self, job: Job, check: Check, send: Send) -> tuple[bytes | Path, str]:
        """The body and content type of the answer; a body that is large is a file in the job's folder.

        check: called now and then; raises to end the job. send: takes messages that come before the answer.
        """
        if job.route == "transcriptions":
            form = job.headers.get("content-type", "")
            return answer_transcription(job.body.read_bytes(), form, self._engines, reading_hooks(check, None))
        request = parse(job)
        if isinstance(request, SyncRequest):
            return self._sync(request, job, check, send)
        accept = job.headers.get("accept")
        streams = choose_answer(accept, request.answers) == NDJSON
        context = Context(job.headers, reading_hooks(check, send if streams else None))
        prediction = handler.predict_fn(request, self._engines, context)
        return handler.output_fn(prediction, accept, context)

    def _sync(self, request: SyncRequest, job: Job, check: Check, send: Send) -> tuple[bytes | Path, str]:
        accept = job.headers.get("accept")
        form = choose_answer(accept, request.answers)
        send(("until", job.sync_ends))
        context = Context(job.headers, syncing_hooks(job, check))
        prediction = handler.predict_fn(request, self._engines, context)
        assert isinstance(prediction, Synced)
        if form == MP4:
            return prediction.film(), MP4
        if job.route == "generate":
            return json.dumps(prediction.as_generated()).encode(), JSON
        return handler.output_fn(prediction, accept, context)


def parse(job: Job) -> Request:
    """Raises: InvalidRequest, UnsupportedContentType."""
    body, content_type = job.body.read_bytes(), job.headers.get("content-type", "")
    if job.route == "generate":
        return parse_generation(body, content_type, job.headers)
    return handler.input_fn(body, content_type, Context(job.headers))


def reading_hooks(check: Check, send: Send | None) -> Hooks:
    def progress(_done_s: float, _total_s: float | None) -> None:
        check()

    def on_words(words: list[Word]) -> None:
        assert send is not None
        plain = [vars(word) for word in words]
        send(("part", json.dumps({"status": "reading", "words": plain}).encode() + b"\n"))

    return Hooks(progress, on_words if send is not None else None)


def syncing_hooks(job: Job, check: Check) -> Hooks:
    left_s = job.sync_ends - time.monotonic()
    within_s = max(left_s - min(ANSWER_S, left_s * ANSWER_SHARE), 0.0)
    return Hooks(check=check, folder=job.folder, within_s=within_s, request_id=job.request_id)
