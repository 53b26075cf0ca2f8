"""A real `viseme serve` in a process of its own, for tests to talk to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_S = 90


@dataclass
class LiveServer:
    """A server and how to reach it."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, timeout: float = 60.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout)

    def worker(self) -> psutil.Process:
        """The process that holds the models: the largest child."""
        children = [c for c in psutil.Process(self.process.pid).children() if c.status() != psutil.STATUS_ZOMBIE]
        return max(children, key=lambda child: child.memory_info().rss)

    def wait_until_ready(self, timeout: float = START_S) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            try:
                if httpx.get(self.url + "/ping", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready after {timeout} s: {self.log.read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def live_server(folder: Path, env: Mapping[str, str] | None = None, *arguments: str) -> Iterator[LiveServer]:
    """Start a server, wait until it is ready, and end it."""
    port = free_port()
    script = Path(sys.executable).parent / "viseme"
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [script, "serve", "--port", str(port), *arguments],
            env=os.environ | dict(env or {}),
            stderr=stderr,
            stdout=stderr,
        )
    server = LiveServer(f"http://127.0.0.1:{port}", process, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
