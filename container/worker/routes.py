"""The worker's routes: from a request as the server received it to one of the engines, and back to an answer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from container.worker.job_outputs import ProgressReport, names_of_outputs, result_of, write_outputs
from container.worker.messages import (
    DeadlineChanged,
    JobDone,
    Part,
    Progress,
    RequestParsed,
    WordsRead,
    WorkerRequest,
)
from container.worker.openai_transcriptions import answer_transcription
from container.worker.viseme_forms import parse_viseme_body
from inference.backends.device import describe_gpu
from inference.engines import Answer, Engines, RequestCallbacks
from inference.engines.lanes import make_lanes
from inference.lip_reading import Word
from inference.memory_usage import MemoryWatch
from inference.requests import ReadRequest, Request, parse_generate_request, parse_job_request, parse_request
from inference.requests.parse import JobRequest

logger = logging.getLogger("viseme.worker")
CancelCheck = Callable[[], None]
SendMessage = Callable[[Part | RequestParsed | Progress | WordsRead | DeadlineChanged], None]
REPORT_S, REPORT_SHARE = 1.0, 0.05  # seconds, or share, of the time left that is reserved to report a timeout
Parse = Callable[[bytes, str, dict[str, str]], Request]
ParseJob = Callable[[bytes, str, dict[str, str]], JobRequest]
PARSERS: dict[str, Parse] = {
    "invocations": parse_request,
    "generate": parse_generate_request,
    "visemes": parse_viseme_body,
}
JOB_PARSERS: dict[str, ParseJob] = {
    "invocations": parse_job_request,
    "generate": parse_generate_request,
    "generations": parse_job_request,
}


class WorkerRoutes:
    """The routes over the loaded engines."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    @classmethod
    def load(cls, model_dir: str | None) -> WorkerRoutes:
        """Load the engines. Raises: the errors of `Engines.from_env`."""
        return cls(Engines.from_env(model_dir))

    def make_lanes(self, n: int) -> list[WorkerRoutes]:
        """Return routes for so many requests at a time, over the same networks; the first are these."""
        self._engines, *others = make_lanes(self._engines, n)
        return [self, *(WorkerRoutes(engines) for engines in others)]

    def warm_up(self) -> dict[str, Any]:
        """Run every engine once. Returns: what is available and what it runs with, for /health and the log."""
        return self._engines.warm_up() | describe_gpu()

    def close(self) -> None:
        self._engines.close()

    def handle(self, worker_request: WorkerRequest, check: CancelCheck, send: SendMessage) -> Answer:
        """Return the answer to a request; a large body is a file in the request's folder.

        check: called often; raises to end the request. send: sends messages that precede the answer.
        Raises: VisemeError.
        """
        body, content_type = worker_request.body.read_bytes(), worker_request.headers.get("content-type", "")
        if worker_request.route == "transcriptions":
            return answer_transcription(body, content_type, self._engines, RequestCallbacks(check))
        request = PARSERS[worker_request.route](body, content_type, worker_request.headers)
        if request.uses_job_deadline:
            send(DeadlineChanged(worker_request.sync_deadline))
        return self._engines.answer(request, worker_request.accept, callbacks_of(worker_request, check, send))

    def run_job(
        self, worker_request: WorkerRequest, check: CancelCheck, send: SendMessage, memory: MemoryWatch
    ) -> JobDone:
        """Run the request of a durable job; its outputs are files in the folder of the request.

        check, send: as for `handle`. memory: watches the job. Raises: VisemeError.
        """
        body, content_type = worker_request.body.read_bytes(), worker_request.headers.get("content-type", "")
        request = JOB_PARSERS[worker_request.route](body, content_type, worker_request.headers)
        if request.uses_job_deadline:
            send(DeadlineChanged(worker_request.sync_deadline))
        parsed = RequestParsed(request.task, names_of_outputs(request, self._engines))
        logger.info("request: %s; it makes %s", parsed.task, ", ".join(parsed.outputs) or "nothing")
        send(parsed)
        report = ProgressReport("reading" if isinstance(request, ReadRequest) else "syncing", send)

        def on_words(words: list[Word]) -> None:
            send(WordsRead(tuple(vars(word) for word in words)))

        callbacks = callbacks_of(worker_request, check, send)
        response = self._engines.run(request, replace(callbacks, on_words=on_words, on_progress=report.update))
        outputs = write_outputs(response, worker_request.folder)
        return JobDone(result_of(response), outputs, *memory.peaks_mib())


def callbacks_of(worker_request: WorkerRequest, check: CancelCheck, send: SendMessage) -> RequestCallbacks:
    """Return callbacks that stream words as parts, and the time that is left for lip sync."""

    def on_words(words: list[Word]) -> None:
        line = {"status": "reading", "words": [vars(word) for word in words]}
        send(Part(json.dumps(line).encode() + b"\n"))

    left_s = worker_request.sync_deadline - time.monotonic()
    timeout_s = max(left_s - min(REPORT_S, left_s * REPORT_SHARE), 0.0)
    return RequestCallbacks(check, on_words, worker_request.folder, timeout_s, worker_request.request_id)
