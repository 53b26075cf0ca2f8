"""Measure how many callers one server serves: clips a second, and live sessions at 25 frames a second.

    python -m bench.throughput [CLIP] [--only read|live] [--rounds 3] [--callers 1 4 16] [--sessions 1 2 4 8]

Each part runs several servers at once, real ones over HTTP, that differ in one setting, and loads them in turn on the
same two cores, so that their ratios hold on a busy machine, too. Callers run on these cores as well.

read: so many callers post a clip again and again. The servers: `alone`, one request at a time; `batched`, 4 at a time
in one worker, whose windows share calls of the network (VISEME_REQUESTS_PER_WORKER); `workers`, as many processes as
suit the cores (SAGEMAKER_MODEL_SERVER_WORKERS=auto). Prints clips per second, CPU seconds per clip with those of all
children, and the ratio of clips per second to `alone` in the same round. All are medians; the ratio has its range.

live: so many sessions speak at once, of the starter avatar and of one with a U-Net of full size and random weights. The
servers: `alone`, one frame in each call of the U-Net, and `batched`, up to 8 of several sessions
(VISEME_SESSION_BATCH). Prints the frames per second of the slowest session, CPU ms per frame, and whether all hold 25.
Before it, the CPU ms of each stage of a frame.

Without CLIP, a person is rendered who says one sentence of three seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import websockets

from bench.avatar import PATCH_QUALITY, make_package, median_ms
from bench.cold_start import cpu_seconds, render_video, run_server, wait_until_ready
from bench.live import make_noise
from container.live.frame_messages import unpack_frame
from container.live.jpeg import encode_jpeg
from inference.audio.avatar_features import mel_of_window
from inference.avatar import AvatarPackage
from inference.avatar.compose import compose_patch

N_CORES = 2
N_LANES, N_SESSION_BATCH = 4, 8
PATIENCE = {"VISEME_QUEUE_SIZE": "64", "VISEME_DEADLINE_S": "600"}  # no caller is rejected
READ_SERVERS = {
    "alone": {"VISEME_REQUESTS_PER_WORKER": "1"},
    "batched": {"VISEME_REQUESTS_PER_WORKER": str(N_LANES)},
    "workers": {"VISEME_REQUESTS_PER_WORKER": "1", "SAGEMAKER_MODEL_SERVER_WORKERS": "auto"},
}
LIVE_SERVERS = {
    "alone": {"VISEME_SESSION_BATCH": "1"},
    "batched": {"VISEME_SESSION_BATCH": str(N_SESSION_BATCH)},
}
CLIPS_PER_CALLER, MIN_CLIPS = 1, 4  # posted in one measurement
WARM_UP_S = 1.5  # speech of the session that loads an avatar
TIMEOUT_S = 600.0
FPS, MIN_FPS = 25, 24.5  # of a session; fewer do not count as 25
FULL_SIZE = "full"  # the package that `make_package` writes
N_SKIPPED = FPS  # frames at the start of a session, which catch up with its start


@dataclass(frozen=True)
class RunningServer:
    """A server, its address, and its process."""

    url: str
    process: psutil.Process


@dataclass(frozen=True)
class Load:
    """What one measurement found. rate: clips, or frames of the slowest session, per second. cpu_s: for each."""

    rate: float
    cpu_s: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--only", choices=("read", "live"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=4.0, help="speech of each session")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "live":
            clip = args.clip or render_video(Path(folder) / "clip.mp4")
            measure_reading(clip.read_bytes(), args.callers, args.rounds)
        if args.only != "read":
            measure_avatars(Path(folder), args.sessions, args.rounds, args.seconds)


@contextlib.contextmanager
def running_servers(
    variants: dict[str, dict[str, str]], settings: dict[str, str]
) -> Iterator[dict[str, RunningServer]]:
    """Run a server for each variant of the settings inside of the block."""
    viseme = (sys.executable, "-m", "container.cli")
    with ExitStack() as stack:
        servers = {}
        for name, variant in variants.items():
            process, ping = stack.enter_context(run_server(viseme, {**os.environ, **settings, **variant}))
            servers[name] = RunningServer(ping.removesuffix("/ping"), process)
        for server in servers.values():
            wait_until_ready(f"{server.url}/ping")
        yield servers


def in_turn(
    servers: dict[str, RunningServer], n_rounds: int, measure: Callable[[RunningServer], Load]
) -> dict[str, list[Load]]:
    """Measure each server once in every round."""
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(n_rounds):
        for name, server in servers.items():
            found[name].append(measure(server))
    return found


def measure_reading(clip: bytes, callers: Sequence[int], n_rounds: int) -> None:
    """Print the clips per second of so many callers."""
    print(f"clips of {len(clip)} bytes, median of {n_rounds} rounds on {N_CORES} cores")
    print(f"{'callers':>8} {'server':8} {'clips/s':>8} {'CPU s/clip':>11}  clips/s to alone")
    with running_servers(READ_SERVERS, PATIENCE) as servers:
        for server in servers.values():
            post_clips(server, clip, N_LANES)
        for n in callers:
            found = in_turn(servers, n_rounds, partial(post_clips, clip=clip, n_callers=n))
            print_rows(n, found)


def post_clips(server: RunningServer, clip: bytes, n_callers: int) -> Load:
    """Post clips from so many callers at once. Raises: SystemExit if one is not answered with 200."""
    n_clips = max(n_callers * CLIPS_PER_CALLER, MIN_CLIPS)
    local = threading.local()

    def post(_i: int) -> None:
        if not hasattr(local, "client"):
            local.client = httpx.Client(timeout=TIMEOUT_S)
        response = local.client.post(f"{server.url}/invocations", content=clip, headers={"content-type": "video/mp4"})
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {response.text[:300]}")

    before, started = cpu_seconds(server.process), time.perf_counter()
    with ThreadPoolExecutor(n_callers) as threads:
        list(threads.map(post, range(n_clips)))
    took_s = time.perf_counter() - started
    return Load(n_clips / took_s, (cpu_seconds(server.process) - before) / n_clips)


def print_rows(n: int, found: dict[str, list[Load]]) -> None:
    for name, loads in found.items():
        ratios = [one.rate / first.rate for one, first in zip(loads, found["alone"], strict=True)]
        rate, cpu_s = (statistics.median(getattr(one, key) for one in loads) for key in ("rate", "cpu_s"))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        print(f"{n:8} {name:8} {rate:8.2f} {cpu_s:11.3f}  {spread}", flush=True)


def measure_avatars(folder: Path, counts: Sequence[int], n_rounds: int, speech_s: float) -> None:
    """Print the frame rates of so many sessions, until no server holds 25 frames a second."""
    avatars = folder / "avatars"
    full_size = make_package(avatars / FULL_SIZE)
    with running_servers(LIVE_SERVERS, {"VISEME_AVATARS": str(avatars)}) as servers:
        for name, package in (("starter", "starter"), (FULL_SIZE, str(full_size))):
            print_stages(name, AvatarPackage.load(package))
            print(f"{'sessions':>8} {'server':8} {'fps, slowest':>13} {'CPU ms/frame':>13}  to alone")
            for server in servers.values():
                speak(server, name, 1, WARM_UP_S)
            for n in counts:
                found = in_turn(servers, n_rounds, partial(speak, avatar=name, n_sessions=n, speech_s=speech_s))
                if not print_sessions(n, found):
                    break


def print_stages(name: str, package: AvatarPackage) -> None:
    """Print the CPU milliseconds of each stage of one frame."""
    features = np.zeros(package.audio_shape, np.float32)
    window = np.random.default_rng(0).integers(-3000, 3000, 3801, np.int16)
    generated, crop, box = package.generate(0, features), package.crop(0), package.box(0)
    patch = compose_patch(crop, generated, box)
    with contextlib.closing(package):
        stages: dict[str, Callable[[], object]] = {
            "mel": lambda: mel_of_window(window),
            "audio encoder": lambda: package.encode_audio(window),
            "U-Net": lambda: package.generate(0, features),
            "compose": lambda: compose_patch(crop, generated, box),
            "JPEG": lambda: encode_jpeg(patch, PATCH_QUALITY),
        }
        found = ", ".join(f"{stage} {median_ms(call):.2f}" for stage, call in stages.items())
    print(f"\n{name}: CPU ms of a frame by stage: {found} (the encoder's includes a mel)")


def speak(server: RunningServer, avatar: str, n_sessions: int, speech_s: float) -> Load:
    """Speak in so many sessions at once."""
    before = cpu_seconds(server.process)
    times = asyncio.run(run_sessions(server, avatar, n_sessions, speech_s))
    cpu_s = cpu_seconds(server.process) - before
    rates = [(len(one) - N_SKIPPED - 1) / (one[-1] - one[N_SKIPPED]) for one in times]
    return Load(min(rates), cpu_s / sum(map(len, times)))


async def run_sessions(server: RunningServer, avatar: str, n_sessions: int, speech_s: float) -> list[list[float]]:
    return await asyncio.gather(*(run_session(server, avatar, speech_s) for _ in range(n_sessions)))


async def run_session(server: RunningServer, avatar: str, speech_s: float) -> list[float]:
    """Send speech to a session; return the arrival time of each of its frames, in seconds."""
    times: list[float] = []
    url = f"{server.url.replace('http', 'ws', 1)}/v1/avatars/{avatar}/session"
    async with websockets.connect(url, proxy=None, compression=None, open_timeout=TIMEOUT_S) as socket:
        await socket.send(make_noise(speech_s))
        await socket.send('{"type": "flush"}')
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                if unpack_frame(message).is_speaking:
                    times.append(time.perf_counter())
            elif (event := json.loads(message))["type"] == "error":
                raise SystemExit(f"{avatar}: {event['message']}")
            elif event["type"] == "speech_finished":
                return times


def print_sessions(n: int, found: dict[str, list[Load]]) -> bool:
    """Print the rows of so many sessions; return whether a server held 25 frames a second for each."""
    holds = False
    for name, loads in found.items():
        ratios = [one.rate / first.rate for one, first in zip(loads, found["alone"], strict=True)]
        rate, cpu_s = (statistics.median(getattr(one, key) for one in loads) for key in ("rate", "cpu_s"))
        verdict = "holds 25" if rate >= MIN_FPS else "late"
        ratio = statistics.median(ratios)
        print(f"{n:8} {name:8} {rate:13.1f} {1000 * cpu_s:13.1f}  {ratio:.2f}  {verdict}", flush=True)
        holds = holds or rate >= MIN_FPS
    return holds


if __name__ == "__main__":
    main()
