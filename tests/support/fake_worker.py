"""A worker process without models, which does what its request says: for tests of the pool and of the server.

A module of its own, so that a spawned process finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from container.worker.messages import DeadlineChanged, Done, LoadFailed, Part, Ready, WorkerRequest

LONG_S = 120.0  # seconds of a request that ends only when it is canceled, or its process dies
LONGER_S = 1.0
PART = bytes(1 << 20)


def run_fake(ends: Sequence[tuple[Connection, Event]], model_dir: str | None, environment: Mapping[str, str]) -> None:
    """Replace `run_worker`. model_dir: a file that the first worker deletes; the next one cannot load its models."""
    os.environ.update(environment)
    pipe = ends[0][0]
    if model_dir is not None:
        try:
            Path(model_dir).unlink()
        except FileNotFoundError:
            pipe.send(LoadFailed("out of memory"))
            return
    pipe.send(Ready({"inference_ready": True}))
    for end in ends:
        threading.Thread(target=run_requests, args=end).start()


def run_requests(pipe: Connection, canceled: Event) -> None:
    """Run the requests of one lane."""
    with contextlib.suppress(EOFError, BrokenPipeError):
        while isinstance(worker_request := pipe.recv(), WorkerRequest):
            command = command_of(worker_request)
            if command == "longer":
                pipe.send(DeadlineChanged(time.monotonic() + LONG_S))
                time.sleep(LONGER_S)
            if command == "hang":
                time.sleep(LONG_S)
            execute(command, canceled.is_set, lambda part: pipe.send(Part(part)))
            if command == "video":
                pipe.send(Done(make_video(worker_request), "video/mp4"))
            elif command == "environment":
                pipe.send(Done(json.dumps(dict(os.environ)).encode(), "application/json"))
            else:
                pipe.send(Done(command.encode(), "text/plain"))


def make_video(worker_request: WorkerRequest) -> Path:
    """Write a file as an answer."""
    path = worker_request.folder / "video.mp4"
    path.write_bytes(PART * 5)
    return path


def command_of(worker_request: WorkerRequest) -> str:
    """Return the request's route, or for the server's routes the first line of its body."""
    return (
        worker_request.route
        if worker_request.route != "invocations"
        else worker_request.body.read_bytes().partition(b"\n")[0].decode()
    )


def execute(command: str, is_canceled: Callable[[], bool], send: Callable[[bytes], None]) -> None:
    """Run a command.

    parts...: send three parts. burst: send six large parts. sleep: wait until canceled. flood: send large parts until
    canceled. Others: nothing.
    """
    if command.startswith("parts"):
        for i in range(3):
            send(f"{command}{i}".encode())
    for _ in range(6 if command == "burst" else 0):
        send(PART)
    give_up = time.monotonic() + LONG_S
    while command in ("sleep", "flood") and time.monotonic() < give_up and not is_canceled():
        if command == "flood":
            send(PART)
        else:
            time.sleep(0.02)
