"""The worker process: loads the models and runs requests, one at a time in each of its lanes.

Spawned by the pool. It exchanges the messages of `container.worker.messages` with it over a pipe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING

from container.logs import recorded_logs, set_up_logs
from container.worker.messages import LOG_NAME, Done, Failed, JobDone, LoadFailed, Ready, WorkerRequest
from inference.error_responses import failure_of
from inference.errors import Canceled, VisemeError
from inference.memory_usage import MemoryWatch
from inference.settings import Settings
from inference.tracing import span, start_tracing, stop_tracing

if TYPE_CHECKING:
    from container.worker.routes import WorkerRoutes

logger = logging.getLogger("viseme.worker")
LOGGED_RESULTS = ("model", "timings_ms", "warnings")  # parts of a result that the log of its job has, too


def run_worker(ends: Sequence[tuple[Connection, Event]], model_dir: str | None, environment: Mapping[str, str]) -> None:
    """Load the models, report the result, and run requests until `Stop` arrives or the server is gone.

    ends: of each lane, the pipe and the event that cancels its request. environment: variables to set before any
    library reads them.
    """
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server finishes its requests, then sends `Stop`
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    set_up_logs()
    logging.captureWarnings(True)  # of libraries, so that the logs of jobs have them
    from inference.media.sandbox.confinement import deny_inspection

    deny_inspection()
    from container.worker.routes import WorkerRoutes  # imports OpenVINO, which takes a while

    pipe = ends[0][0]
    try:
        if Settings.from_env().tracing:
            start_tracing()
        routes = WorkerRoutes.load(model_dir)
        lanes = routes.make_lanes(len(ends))
        health = routes.warm_up()
    except Exception as err:
        logger.exception("the models could not be loaded")
        pipe.send(LoadFailed(str(err) if isinstance(err, VisemeError) else type(err).__name__))
        return
    pipe.send(Ready(health))
    threads = [
        threading.Thread(target=run_requests, args=(*end, lane)) for end, lane in zip(ends[1:], lanes[1:], strict=True)
    ]
    for thread in threads:
        thread.start()
    run_requests(*ends[0], lanes[0])
    for thread in threads:
        thread.join()
    stop_tracing()


def run_requests(pipe: Connection, canceled: Event, routes: WorkerRoutes) -> None:
    """Run the requests of one lane until `Stop` arrives or the server is gone."""
    with contextlib.suppress(EOFError, BrokenPipeError), contextlib.closing(routes):
        while isinstance(message := pipe.recv(), WorkerRequest):
            pipe.send(run_request(message, pipe, canceled, routes))


def run_job(
    worker_request: WorkerRequest,
    check: Callable[[], None],
    pipe: Connection,
    routes: WorkerRoutes,
    memory: MemoryWatch,
) -> JobDone:
    """Run the request of a durable job; its log has at least a line for its start and one for its end."""
    logger.info("job started: %d bytes of input", worker_request.body.stat().st_size)
    done = routes.run_job(worker_request, check, pipe.send, memory)
    names = ", ".join(output.name for output in done.outputs)
    extra = {name: done.result[name] for name in LOGGED_RESULTS if name in done.result}
    logger.info(
        "job done: %s; memory at most %s MiB (GPU: %s)", names, done.ram_peak_mib, done.vram_peak_mib, extra=extra
    )
    return done


def run_request(
    worker_request: WorkerRequest, pipe: Connection, canceled: Event, routes: WorkerRoutes
) -> Done | JobDone | Failed:
    """Run a request. Errors are logged in full; the caller receives what `failure_of` makes of them."""

    def check() -> None:
        if canceled.is_set():
            raise Canceled("the request was canceled")

    with contextlib.ExitStack() as stack:
        traced = stack.enter_context(
            span("worker", worker_request.traceparent, route=worker_request.route, request_id=worker_request.request_id)
        )
        memory = None
        if worker_request.is_job:
            stack.enter_context(recorded_logs(worker_request.folder / LOG_NAME))
            memory = stack.enter_context(MemoryWatch())
        try:
            if memory is not None:
                return run_job(worker_request, check, pipe, routes, memory)
            answer = routes.handle(worker_request, check, pipe.send)
        except Exception as err:
            failure = failure_of(err)
            if traced is not None:
                traced.set_attribute("error.type", failure.code)
            if worker_request.is_job and failure.status < 500:
                logger.info("job failed: %s: %s", failure.code, failure.message)
            if failure.status >= 500:
                extra = {"request_id": worker_request.request_id, "code": failure.code}
                logger.exception("request failed", extra=extra)
            return Failed(failure) if memory is None else Failed(failure, *memory.peaks_mib())
    return Done(answer.body, answer.content_type)
