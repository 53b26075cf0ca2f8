"""Measure whether a video that is being read when the server gets SIGTERM is finished in time.

    python -m bench.drain [VIDEO] [--rounds 2]

SageMaker sends SIGTERM, and kills the container 30 seconds later; the server finishes what it has within 25. In every
round a server starts, receives the video, and gets SIGTERM as soon as the request is in progress. Prints the seconds
from the signal to the answer, and the CPU seconds of all its processes meanwhile, which depend less on what else runs.
Without VIDEO, one person is rendered who speaks for 40 seconds. Exits with status 1 if an answer is not 200, or if the
CPU seconds alone are over 25.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.cold_start import cpu_seconds, run_server, wait_until_ready
from bench.long_read import render_sentences
from container.server import DRAIN_TIMEOUT_S

N_SENTENCES = 18  # 40 s
POLL_S = 0.02
TIMEOUT_S = 300.0
HELD = "viseme_requests_held "


@dataclass(frozen=True)
class Drained:
    """An answer after SIGTERM. video_s: length of the video; 0 if it was not read."""

    status: int
    video_s: float
    took_s: float
    cpu_s: float


def main() -> None:
    """Print a line per round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or render_sentences(N_SENTENCES, Path(folder) / "long.mp4")
        rounds = [stop_while_reading(video.read_bytes()) for _ in range(args.rounds)]
    raise SystemExit(any(one.status != 200 or one.cpu_s > DRAIN_TIMEOUT_S for one in rounds))


def stop_while_reading(video: bytes) -> Drained:
    """Send a video and then SIGTERM to a new server, print what happens, and return it."""
    with run_server((sys.executable, "-m", "container.cli"), dict(os.environ)) as (server, ping):
        wait_until_ready(ping)
        url = ping.removesuffix("/ping")
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(post, url, video)
            wait_until_held(url)
            found = wait_for_answer(server, answer.result)
    print(
        f"{found.video_s:.0f} s of video: status {found.status} after {found.took_s:.1f} s, {found.cpu_s:.1f} s of CPU "
        f"(limit {DRAIN_TIMEOUT_S:.0f}); {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}",
        flush=True,
    )
    return found


def post(url: str, video: bytes) -> httpx.Response:
    headers = {"content-type": "video/mp4"}
    return httpx.post(f"{url}/invocations", content=video, headers=headers, timeout=TIMEOUT_S, trust_env=False)


def wait_until_held(url: str) -> None:
    """Return once a request is in progress. Raises: SystemExit."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
        if any(line.startswith(HELD) and float(line.split()[1]) for line in lines):
            return
        time.sleep(POLL_S)
    raise SystemExit("the server did not take the request")


def wait_for_answer(server: psutil.Process, answer: Callable[[], httpx.Response]) -> Drained:
    """Send SIGTERM and wait for the answer."""
    watch = CpuWatch(server)
    started = time.monotonic()
    server.send_signal(signal.SIGTERM)
    with watch.running():
        response = answer()
    took_s = time.monotonic() - started
    video_s = response.json()["duration_s"] if response.status_code == 200 else 0.0
    return Drained(response.status_code, video_s, took_s, watch.cpu_s)


class CpuWatch:
    """The CPU seconds of a process and its descendants while it lives: they cannot be read once it has ended."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._before = self._last = cpu_seconds(process)
        self._is_over = threading.Event()

    @property
    def cpu_s(self) -> float:
        return self._last - self._before

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch inside of the block."""
        thread = threading.Thread(target=self._poll)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _poll(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not self._is_over.wait(POLL_S):
                self._last = max(self._last, cpu_seconds(self._process))


if __name__ == "__main__":
    main()
