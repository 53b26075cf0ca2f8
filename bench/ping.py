"""Measure the latency of /ping while many clients post requests.

    python -m bench.ping [--callers 200] [--seconds 10]

Starts `viseme serve` and posts a video over and over from many threads of another process, while this process polls
/ping. SageMaker gives /ping two seconds. Prints the number of responses by status (0: connection closed), and the
median, 99th percentile and maximum of the latency of /ping.
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

READY_TIMEOUT_S = 300  # for loading the models
PING_INTERVAL_S = 0.02
READY_EVENT = '"event": "viseme is ready"'  # in the server's log


@contextmanager
def running_server(folder: Path) -> Iterator[int]:
    """Run a server; yield its port."""
    log = folder / "server.log"
    with log.open("wb") as stderr:
        server = subprocess.Popen([str(Path(sys.executable).parent / "viseme"), "serve", "--port", "0"], stderr=stderr)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while READY_EVENT not in (text := log.read_text()):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start:\n{text[-2000:]}")
            time.sleep(0.1)
        ready = next(line for line in text.splitlines() if READY_EVENT in line)
        port = int(json.loads(ready)["port"])
        while request_status(port, "GET", "/ping") != 200:
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def request_status(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Send one request; return the status of the response, or 0 if the connection is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_TIMEOUT_S)
    try:
        connection.request(method, path, body, {"content-type": "video/mp4"} if body else {})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return response.status


def post_continuously(
    port: int, video: bytes, n_callers: int, seconds: float, results: multiprocessing.Queue[dict[int, int]]
) -> None:
    """Post a video from many threads for so long; put the number of responses by status into the queue."""
    end = time.monotonic() + seconds
    statuses: Counter[int] = Counter()

    def post() -> None:
        while time.monotonic() < end:
            statuses[request_status(port, "POST", "/invocations", video)] += 1

    threads = [threading.Thread(target=post) for _ in range(n_callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(dict(statuses))


def main() -> None:
    """Run the server and the clients, and print the latencies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SyntheticClip("NOW").write(folder / "video.mp4")
        video = (folder / "video.mp4").read_bytes()
        results: multiprocessing.Queue[dict[int, int]] = spawn.Queue()
        with running_server(folder) as port:
            clients = spawn.Process(target=post_continuously, args=(port, video, args.callers, args.seconds, results))
            clients.start()
            time.sleep(1)  # until the clients have started
            latencies_s = time_pings(port, args.seconds - 1)
            statuses = results.get()
            clients.join()
    p50, p99, longest = (1000 * float(q) for q in np.quantile(latencies_s, [0.5, 0.99, 1.0]))
    print(f"{args.callers} callers: responses by status {statuses}")
    print(f"/ping, {len(latencies_s)} times: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms")


def time_pings(port: int, seconds: float) -> list[float]:
    """Poll /ping for so long; return the latency of each request in seconds. Raises: SystemExit if one fails."""
    latencies_s = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        status = request_status(port, "GET", "/ping")
        latencies_s.append(time.perf_counter() - started)
        if status != 200:
            raise SystemExit(f"/ping returned status {status}")
        time.sleep(PING_INTERVAL_S)
    return latencies_s


if __name__ == "__main__":
    main()
