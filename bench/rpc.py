"""Measure what gRPC adds to a frame of a live avatar.

    python -m bench.rpc [--avatar FOLDER]

First against a server that returns prepared frames, so that only the protocol is measured: messages, HTTP/2, and the
switch between event loop and thread on both sides. Then against a server that generates frames. Without --avatar its
networks are of upstream's size with random weights, which cost the same. Prints one JSON object:

  protocol  prepared frames, by call (unary, stream) and image (patch, whole frame): round_trip_ms, the median time
            from the request to the received frame; cpu_ms, the mean CPU time of client and server together, which
            other processes do not lengthen
  drawn     generated frames: round_trip_ms, and network_ms, the median time of the U-Net
  fps       frames per second of 1, 2 and 4 clients together

Exits with status 1 if the protocol takes more than 0.5 ms per frame.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from container.client import FrameClient, ReceivedFrame
from container.live.legacy.single_frames import NumberedFrame
from inference.settings import Settings

MAX_ROUND_TRIP_MS = 0.5  # per prepared frame
N_WARMUP, N_PREPARED, N_GENERATED = 50, 500, 60  # frames
N_INDICES = 50  # frames of the package that are requested in turn
N_CLIENTS = (1, 2, 4)
CLIENTS_S = 5.0  # duration of the run with several clients
JPEG_SIZES = {"patch": 4_000, "whole": 50_000}  # bytes: 182 px, and 1280x720
Kind = Literal["patch", "whole"]
KINDS: tuple[Kind, ...] = ("patch", "whole")


def main() -> None:
    """Print one JSON object; exit with status 1 if the protocol takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", type=Path, help="folder of a package")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ready-made", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(serve(args.serve, is_prepared=args.ready_made))
        return
    with tempfile.TemporaryDirectory() as folder:
        package = args.avatar or make_package(Path(folder) / "full")
        results = measure(package)
    print(json.dumps(results, indent=1))
    raise SystemExit(max(one["round_trip_ms"] for one in results["protocol"].values()) > MAX_ROUND_TRIP_MS)


def measure(package: Path) -> dict[str, Any]:
    results: dict[str, Any] = {"avatar": package.name}
    with running_server(package, "--ready-made") as (address, pid):
        results["protocol"] = time_kinds(address, package.name, N_PREPARED, lambda: cpu_s(pid) + time.process_time())
    with running_server(package) as (address, pid):
        results["drawn"] = time_kinds(address, package.name, N_GENERATED, None)
        results["fps"] = {n: round(count_frames(address, package.name, n) / CLIENTS_S, 1) for n in N_CLIENTS}
    return results


def time_kinds(
    address: str, avatar: str, n: int, cpu_seconds: Callable[[], float] | None
) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        with FrameClient(address, frames=kind) as client:
            results[f"unary_{kind}"] = time_frames(partial(client.frame, avatar), n, cpu_seconds)
            with open_stream(client, avatar) as request_frame:
                results[f"stream_{kind}"] = time_frames(request_frame, n, cpu_seconds)
    return results


def time_frames(
    request_frame: Callable[[int], ReceivedFrame], n: int, cpu_seconds: Callable[[], float] | None
) -> dict[str, float]:
    """Measure frames that are requested one after the other, in milliseconds.

    cpu_seconds: returns the CPU time so far. Returns: the median round trip, and the mean CPU time; without
    cpu_seconds the median time of the network instead.
    """
    round_trips, network_times = [], []
    for i in range(N_WARMUP):
        request_frame(i % N_INDICES)
    cpu_start = cpu_seconds() if cpu_seconds is not None else 0.0
    for i in range(n):
        start = time.perf_counter()
        frame = request_frame(i % N_INDICES)
        round_trips.append((time.perf_counter() - start) * 1000)
        network_times.append(frame.network_ms)
    results = {"round_trip_ms": round(float(np.median(round_trips)), 3)}
    if cpu_seconds is not None:
        return results | {"cpu_ms": round((cpu_seconds() - cpu_start) / n * 1000, 3)}
    return results | {"network_ms": round(float(np.median(network_times)), 3)}


def cpu_s(pid: int) -> float:
    """Return the CPU time of another process so far. The clock's number is that of Linux for a process."""
    return time.clock_gettime((~pid << 3) | 2)


def make_package(output: Path) -> Path:
    from bench.avatar import make_package

    return make_package(output)


@contextmanager
def open_stream(client: FrameClient, avatar: str) -> Iterator[Callable[[int], ReceivedFrame]]:
    """Open a stream; yield a function that requests one frame and waits for it."""
    indices: list[int] = []
    is_requested, is_closed = threading.Semaphore(0), threading.Event()

    def requests() -> Iterator[int]:
        while True:
            is_requested.acquire()
            if is_closed.is_set():
                return
            yield indices.pop()

    responses = client.stream(avatar, requests())

    def request_frame(i: int) -> ReceivedFrame:
        indices.append(i)
        is_requested.release()
        return next(responses)

    yield request_frame
    is_closed.set()
    is_requested.release()
    assert next(responses, None) is None


def count_frames(address: str, avatar: str, n_clients: int) -> int:
    """Count the frames that so many clients receive together, each requesting as fast as it can."""
    counts = [0] * n_clients

    def run_client(k: int) -> None:
        with FrameClient(address, frames="patch") as client, open_stream(client, avatar) as request_frame:
            request_frame(0)
            end = time.perf_counter() + CLIENTS_S
            while time.perf_counter() < end:
                request_frame(counts[k] % N_INDICES)
                counts[k] += 1

    threads = [threading.Thread(target=run_client, args=(k,)) for k in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


@contextmanager
def running_server(package: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Run a gRPC server for the package; yield its address and process id."""
    command = [sys.executable, "-m", "bench.rpc", "--serve", str(package.absolute()), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise SystemExit("the server did not start")
        yield f"127.0.0.1:{port}", server.pid
        server.communicate()  # closes stdin, which stops the server


async def serve(package: Path, *, is_prepared: bool) -> None:
    """Print the port, and serve until stdin is closed. is_prepared: return prepared frames, without the network."""
    from container import rpc
    from container.live.avatar_cache import AvatarCache
    from container.live.legacy.single_frames import LatencyByAvatar

    if is_prepared:
        vars(rpc)["render_frame"] = return_prepared_frame
    settings = Settings.from_env().model_copy(update={"avatars": package.parent})
    avatars = AvatarCache(settings)
    server = rpc.RpcServer(avatars, LatencyByAvatar(), settings, 0, lambda: True)
    async with avatars.acquire(package.name):
        print(await server.start(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop()
    await avatars.close()


def return_prepared_frame(*_args: object, is_whole: bool) -> NumberedFrame:
    """Replace `container.rpc.render_frame`: return bytes of the size of a JPEG."""
    jpeg = bytes(JPEG_SIZES["whole" if is_whole else "patch"])
    return NumberedFrame(jpeg, (549.0, 231.0, 731.0, 413.0), (182, 182, 3), "packaged", 0.0, 0.0, 0.0)


if __name__ == "__main__":
    main()
