"""How quick /ping is while many callers ask for work.

    python -m bench.ping [--callers 200] [--seconds 10]

Starts `viseme serve`, has callers post a film over and over from a process of their own, and asks /ping from this
one. SageMaker gives /ping two seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from inference.speaker import SyntheticClip

READY_S = 300  # for the models to load
EVERY_S = 0.02  # between pings


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """A server; yields its port."""
    log = folder / "server.log"
    with log.open("wb") as stderr:
        server = subprocess.Popen([str(Path(sys.executable).parent / "viseme"), "serve", "--port", "0"], stderr=stderr)
    try:
        give_up = time.monotonic() + READY_S
        while '"event": "viseme is ready"' not in (text := log.read_text()):
            if server.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the server did not start:\n{text[-2000:]}")
            time.sleep(0.1)
        ready = next(line for line in text.splitlines() if '"event": "viseme is ready"' in line)
        port = int(json.loads(ready)["port"])
        while ask(port, "GET", "/ping") != 200:
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """The status of one request; 0 where the server hung up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        connection.request(method, path, body, {"content-type": "video/mp4"} if body else {})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return response.status


def call_for(
    port: int, film: bytes, n_callers: int, seconds: float, answers: multiprocessing.Queue[dict[int, int]]
) -> None:
    """Post a film from many threads until the time is over; tells how many answers of each status there were."""
    end = time.monotonic() + seconds
    statuses: Counter[int] = Counter()

    def call() -> None:
        while time.monotonic() < end:
            statuses[ask(port, "POST", "/invocations", film)] += 1

    threads = [threading.Thread(target=call) for _ in range(n_callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put(dict(statuses))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SyntheticClip("NOW").write(folder / "film.mp4")
        film = (folder / "film.mp4").read_bytes()
        answers: multiprocessing.Queue[dict[int, int]] = spawn.Queue()
        with serving(folder) as port:
            callers = spawn.Process(target=call_for, args=(port, film, asked.callers, asked.seconds, answers))
            callers.start()
            time.sleep(1)  # for the callers to be there
            pings = ping_for(port, asked.seconds - 1)
            statuses = answers.get()
            callers.join()
    p50, p99, worst = (1000 * float(q) for q in np.quantile(pings, [0.5, 0.99, 1.0]))
    print(f"{asked.callers} callers: answers by status {statuses}")
    print(f"/ping, {len(pings)} times: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {worst:.1f} ms")


def ping_for(port: int, seconds: float) -> list[float]:
    """Seconds that each ping took."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        status = ask(port, "GET", "/ping")
        took.append(time.perf_counter() - began)
        if status != 200:
            raise SystemExit(f"/ping said {status}")
        time.sleep(EVERY_S)
    return took


if __name__ == "__main__":
    main()
