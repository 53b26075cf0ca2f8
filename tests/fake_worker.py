"""A worker process without models, which does what its job says: for tests of the pool and of the server.

A module of its own, so that a spawned process finds it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from container.worker_main import Job

LONG_S = 120.0  # a job that ends only when it is told to, or its process dies
LONGER_S = 1.0
PART = bytes(1 << 20)


def run_fake(pipe: Connection, canceled: Event, model_dir: str | None) -> None:
    """Stands where `run_worker` does. model_dir: a file in which one worker finds its models, and no second."""
    if model_dir is not None:
        try:
            Path(model_dir).unlink()
        except FileNotFoundError:
            pipe.send(("broken", "out of memory"))
            return
    pipe.send(("ready", {"inference_ready": True}))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (message := pipe.recv())[0] != "stop":
            wish = wish_of(message[1])
            if wish == "longer":
                pipe.send(("until", time.monotonic() + LONG_S))
                time.sleep(LONGER_S)
            act(wish, canceled.is_set, lambda part: pipe.send(("part", part)))
            if wish == "film":
                pipe.send(("done", make_film(message[1]), "video/mp4"))
            else:
                pipe.send(("done", wish.encode(), "text/plain"))


def make_film(job: Job) -> Path:
    """A file as an answer."""
    path = job.folder / "film.mp4"
    path.write_bytes(PART * 5)
    return path


def wish_of(job: Job) -> str:
    """By its route, or for the server's routes by the first line of its body."""
    return job.route if job.route != "invocations" else job.body.read_bytes().partition(b"\n")[0].decode()


def act(wish: str, is_canceled: Callable[[], bool], send: Callable[[bytes], None]) -> None:
    """parts...: three parts. sleep: until canceled. flood: parts without end, until canceled. Others: nothing."""
    if wish.startswith("parts"):
        for i in range(3):
            send(f"{wish}{i}".encode())
    ends = time.monotonic() + LONG_S
    while wish in ("sleep", "flood") and time.monotonic() < ends and not is_canceled():
        if wish == "flood":
            send(PART)
        else:
            time.sleep(0.02)
