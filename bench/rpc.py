"""What gRPC adds to a frame: `python -m bench.rpc [--avatar DIR]`.

The protocol alone is measured on a server in a process of its own that has every frame ready before it is asked for:
what a client waits then is messages, HTTP/2, and the way from the event loop to a thread and back, on both sides;
beside it stands the CPU time of both, which no other work on the machine makes longer. Then the same client asks a
server that draws. Without --avatar its networks are of upstream's size with random weights, which paint nothing, and
cost the same.
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

MOST_MS = 0.5  # a frame, that the protocol may add
SETTLED, N_READY, N_DRAWN = 50, 500, 60  # frames left out, and measured
N_CLIENTS = (1, 2, 4)
SECONDS = 5.0  # that they ask for
SIZES = {"patch": 4_000, "whole": 50_000}  # bytes of a JPEG: 182 px, and 1280x720
Kind = Literal["patch", "whole"]
KINDS: tuple[Kind, ...] = ("patch", "whole")


def main() -> None:
    """Print one JSON object; exit 1 where the protocol adds more than its share."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--avatar", type=Path, help="the folder of a package")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ready-made", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        asyncio.run(serve(asked.serve, is_ready_made=asked.ready_made))
        return
    with tempfile.TemporaryDirectory() as folder:
        package = asked.avatar or make_package(Path(folder) / "full")
        found = measure(package)
    print(json.dumps(found, indent=1))
    raise SystemExit(max(one["round_trip_ms"] for one in found["protocol"].values()) > MOST_MS)


def measure(package: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"avatar": package.name}
    with serving(package, "--ready-made") as (address, pid):
        found["protocol"] = time_kinds(address, package.name, N_READY, lambda: cpu_s(pid) + time.process_time())
    with serving(package) as (address, pid):
        found["drawn"] = time_kinds(address, package.name, N_DRAWN, None)
        found["fps"] = {n: round(count_frames(address, package.name, n) / SECONDS, 1) for n in N_CLIENTS}
    return found


def time_kinds(address: str, avatar: str, n: int, cpu: Callable[[], float] | None) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        with FrameClient(address, frames=kind) as client:
            found[f"unary_{kind}"] = time_frames(partial(client.frame, avatar), n, cpu)
            with one_by_one(client, avatar) as ask:
                found[f"stream_{kind}"] = time_frames(ask, n, cpu)
    return found


def time_frames(ask: Callable[[int], ReceivedFrame], n: int, cpu: Callable[[], float] | None) -> dict[str, float]:
    """Milliseconds of a frame, asked for one after the other: medians, and the CPU's mean where `cpu` tells seconds."""
    waited, network = [], []
    for i in range(SETTLED):
        ask(i % 50)
    spent = cpu() if cpu is not None else 0.0
    for i in range(n):
        start = time.perf_counter()
        still = ask(i % 50)
        waited.append((time.perf_counter() - start) * 1000)
        network.append(still.network_ms)
    found = {"round_trip_ms": round(float(np.median(waited)), 3)}
    if cpu is not None:
        return found | {"cpu_ms": round((cpu() - spent) / n * 1000, 3)}
    return found | {"network_ms": round(float(np.median(network)), 3)}


def cpu_s(pid: int) -> float:
    """The CPU time of another process so far. Linux numbers the clocks of processes so."""
    return time.clock_gettime((~pid << 3) | 2)


def make_package(output: Path) -> Path:
    from bench.avatar import make_package

    return make_package(output)


@contextmanager
def one_by_one(client: FrameClient, avatar: str) -> Iterator[Callable[[int], ReceivedFrame]]:
    """A stream on which each frame is asked for when the one before has come."""
    wanted: list[int] = []
    asked, is_over = threading.Semaphore(0), threading.Event()

    def requests() -> Iterator[int]:
        while True:
            asked.acquire()
            if is_over.is_set():
                return
            yield wanted.pop()

    answers = client.stream(avatar, requests())

    def ask(i: int) -> ReceivedFrame:
        wanted.append(i)
        asked.release()
        return next(answers)

    yield ask
    is_over.set()
    asked.release()
    assert next(answers, None) is None


def count_frames(address: str, avatar: str, n_clients: int) -> int:
    """Frames that so many clients get together, each asking as fast as it can."""
    counts = [0] * n_clients

    def watch(k: int) -> None:
        with FrameClient(address, frames="patch") as client, one_by_one(client, avatar) as ask:
            ask(0)
            ends = time.perf_counter() + SECONDS
            while time.perf_counter() < ends:
                ask(counts[k] % 50)
                counts[k] += 1

    threads = [threading.Thread(target=watch, args=(k,)) for k in range(n_clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(counts)


@contextmanager
def serving(package: Path, *options: str) -> Iterator[tuple[str, int]]:
    """The gRPC port over that package; yields its address and its process."""
    command = [sys.executable, "-m", "bench.rpc", "--serve", str(package.absolute()), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise SystemExit("the server did not start")
        yield f"127.0.0.1:{port}", server.pid
        server.communicate()  # it ends when nobody is left to talk to it


async def serve(package: Path, *, is_ready_made: bool) -> None:
    """Print the port, and serve until stdin ends."""
    from container import rpc
    from container.live.avatar_cache import AvatarCache
    from container.live.legacy.single_frames import LatencyByAvatar

    if is_ready_made:
        vars(rpc)["render_frame"] = give_still
    settings = Settings.from_env().model_copy(update={"avatars": package.parent})
    avatars = AvatarCache(settings)
    server = rpc.RpcServer(avatars, LatencyByAvatar(), settings, 0, lambda: True)
    async with avatars.acquire(package.name):
        print(await server.start(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop()
    await avatars.close()


def give_still(*_given: object, is_whole: bool) -> NumberedFrame:
    """A frame that was drawn before."""
    jpeg = bytes(SIZES["whole" if is_whole else "patch"])
    return NumberedFrame(jpeg, (549.0, 231.0, 731.0, 413.0), (182, 182, 3), "packaged", 0.0, 0.0, 0.0)


if __name__ == "__main__":
    main()
