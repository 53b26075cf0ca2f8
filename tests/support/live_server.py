"""A real `viseme serve` in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

PATIENCE_S = 300.0  # only a guard against hanging: a busy machine takes minutes to load and to read
SERVE = (str(Path(sys.executable).parent / "viseme"), "serve", "--port", "0")


@dataclass
class LiveServer:
    """A server process, and requests to it."""

    process: subprocess.Popen[bytes]
    log: Path

    @cached_property
    def ready(self) -> dict[str, Any]:
        """Return the fields that the server logs when it is ready, such as the port that the system chose."""
        lines = (line for line in self.log.read_text().splitlines() if '"event": "viseme is ready"' in line)
        found: dict[str, Any] = json.loads(next(lines))
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ready['port']}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        with self.client() as own:
            return own.get(path)

    def worker(self) -> psutil.Process:
        """Return the process with the models: the largest child."""
        children = [c for c in psutil.Process(self.process.pid).children() if c.status() != psutil.STATUS_ZOMBIE]
        return max(children, key=lambda child: child.memory_info().rss)

    def held(self) -> int:
        """Return the number of queued and running requests."""
        lines = self.get("/metrics").text.splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith("viseme_requests_held "))

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a condition. Raises: AssertionError with the log if the server exits, or if it takes too long."""
        give_up = time.monotonic() + PATIENCE_S
        while not is_so():
            if self.process.poll() is not None:
                raise AssertionError(f"exit code {self.process.returncode}: {self.log.read_text()[-2000:]}")
            if time.monotonic() > give_up:
                raise AssertionError(f"the condition was not met within {PATIENCE_S} s: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: '"event": "viseme is ready"' in self.log.read_text())
        self.wait_until(lambda: self.get("/ping").status_code == 200)


@contextmanager
def live_server(
    folder: Path,
    env: Mapping[str, str] | None = None,
    *arguments: str,
    command: Sequence[str] = SERVE,
    kind: type[LiveServer] = LiveServer,
) -> Iterator[LiveServer]:
    """Start a server, wait until it is ready, and stop it at the end. kind: the class for requests to it."""
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *arguments], env=os.environ | dict(env or {}), stderr=stderr, stdout=stderr
        )
    server = kind(process, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
