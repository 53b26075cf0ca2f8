"""Measure what each protocol of live avatars costs, the frame rates of several clients, and interrupts.

    python -m bench.live [--avatar FOLDER] [--rounds 100] [--interrupts 10] [--only-interrupts]

Requests single frames in every protocol in turn, with the server on one core. Without --avatar it measures the starter
avatar, or, if that is not available, networks of its size with random weights, which cost the same. Prints one JSON
object; times are medians in milliseconds:

  unet_ms         the U-Net alone
  round_trip_ms   from the request to the received frame; of a session, from one frame to the next
  behind_unet_ms  round trip minus the engine's time, while the U-Net runs and evicts the rest from the CPU's caches
  over_ms         the same while the engine returns frames that it has generated before
  fps             frames of speech per second of 1, 2 and 4 session clients together; real time is 25 for each
  interrupt       from a client's message to the last frame or audio of the old speech, and to the shut mouth: see
                  `bench.interrupts`

Exits with status 1 if over_ms exceeds 0.5 for a protocol, or an interrupt takes over 120 ms to the last old frame or
over 200 ms to the shut mouth.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import queue
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
import websockets
from websockets.sync.client import connect

from bench.interrupts import exceeds_limits, measure_interrupts
from bench.live_server import NAME, serve
from container.live.frame_messages import FrameMessage, unpack_frame
from container.protos import optimized_lipsyncsrv_pb2 as pb2
from container.protos import optimized_lipsyncsrv_pb2_grpc as pb2_grpc
from inference.avatar import list_avatars
from inference.avatar.manifest import IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.write_package import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.faces import FaceBox
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.settings import Settings
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.weights.architectures import weights_of

MAX_OVER_MS = 0.5  # time of a frame beyond the engine's own time
N_WARMUP, N_ROUNDS = 10, 100  # calls of each protocol
N_INTERRUPTS = 10  # of each protocol
IDLE_POLL_S = 0.2  # without a call of the engine, the server is idle
N_CLIENTS = (1, 2, 4)
SPEECH_S = 4.0  # audio of each client
RATE, FPS = 16_000, 25
WIDTHS, N_AUDIO = (8, 16, 32, 64, 128), 16  # size of the starter's U-Net
ENCODER_WIDTHS = (16, 32, 64, 128, 256)  # size of the starter's audio encoder
SIDE, BOX, N_FRAMES = 512, 200, 50
TEXT, SEED = "NOW PLEASE", 3
SPAWN = multiprocessing.get_context("spawn")

RequestFrame = Callable[[int], object]  # requests the frame of that index and waits for its image


def main() -> None:
    """Print one JSON object; exit with status 1 if a protocol takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", type=Path, help="folder of a package")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS, help="measured calls of each protocol")
    parser.add_argument("--interrupts", type=int, default=N_INTERRUPTS, help="measured interrupts of each protocol")
    parser.add_argument("--only-interrupts", action="store_true", help="measure nothing else")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        provide_avatar(Path(folder), args.avatar)
        if not args.only_interrupts:
            results |= measure_protocols(Path(folder), args.rounds)
            results |= {"fps": {f"{n} clients": measure_clients(Path(folder), n) for n in N_CLIENTS}}
        with running_server(Path(folder), is_paced=True) as server:
            results["interrupt"] = measure_interrupts(NAME, server.port, server.grpc_port, args.interrupts)
    print(json.dumps(results, indent=1))
    is_slow = max(results.get("over_ms", {"none": 0.0}).values()) > MAX_OVER_MS
    raise SystemExit(is_slow or exceeds_limits(results["interrupt"]))


def provide_avatar(folder: Path, given: Path | None) -> None:
    """Link or write the package to measure at `folder / NAME`."""
    package = given or list_avatars(Settings.from_env()).get("starter")
    if package is not None:
        (folder / NAME).symlink_to(package.absolute())
    else:
        write_package(folder / NAME)


def write_package(folder: Path) -> None:
    """Write a package with frames of the synthetic speaker and networks of the starter's size with random weights."""
    torch.manual_seed(1)
    clip = SyntheticClip(TEXT, SEED, SyntheticClipOptions(width=SIDE, height=SIDE, length_s=N_FRAMES / FPS + 1))
    frames = [rendered.frame for rendered in islice(clip.frames(), N_FRAMES)]
    left = (SIDE - BOX) // 2
    box = FaceBox(left, left, left + BOX, left + BOX)
    with atomic_package_folder(folder) as part:
        written = write_frames(part, (CroppedFrame(frame, box) for frame in frames), NAME)
        encoder = AudioVisualEncoder(ENCODER_WIDTHS).eval()
        write_networks(part, weights_of(AvatarUNet("ave", WIDTHS, N_AUDIO)), weights_of(encoder))
        manifest = Manifest(
            name=NAME,
            frames=N_FRAMES,
            width=written.width,
            height=written.height,
            mode="ave",
            idle=IdleRange(first=0, last=N_FRAMES - 1, is_shut=True),
            landmarks="none",
            made_from={},
            files=describe_files(part),
            boxes=[(left, left, left + BOX, left + BOX)] * N_FRAMES,
        )
        write_manifest(part, manifest)


class ServerProcess:
    """A server in its own process, which also measures the time of its engine."""

    def __init__(self, folder: Path, *, is_paced: bool, has_unet: bool = True) -> None:
        self._pipe, child_end = SPAWN.Pipe()
        self._process = SPAWN.Process(target=serve, args=(child_end, folder, is_paced, has_unet))
        self._process.start()
        child_end.close()
        _, self.port, self.grpc_port, self.network_ms = self._pipe.recv()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def take_engine_ms(self) -> list[float]:
        """Return the engine's time for each frame since the last call."""
        return self._request("take_times")

    def reuse_frames(self) -> None:
        """Have the engine return a frame of the same index again instead of generating it."""
        self._request("reuse_frames")

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join()

    def _request(self, command: str) -> list[float]:
        self._pipe.send(command)
        times_ms: list[float] = self._pipe.recv()
        return times_ms


@contextmanager
def running_server(folder: Path, *, is_paced: bool, has_unet: bool = True) -> Iterator[ServerProcess]:
    server = ServerProcess(folder, is_paced=is_paced, has_unet=has_unet)
    try:
        yield server
    finally:
        server.stop()


def measure_protocols(folder: Path, n_rounds: int) -> dict[str, Any]:
    """Measure the round trips of each protocol, with and without the engine's work in between."""
    with running_server(folder, is_paced=False) as server, ExitStack() as stack:
        protocols = open_protocols(server, stack)
        round_trip, behind = time_requests(server, protocols, n_rounds)
        round_trip["session"], behind["session"] = measure_session(server, n_rounds, is_speaking=True)
        server.reuse_frames()
        _, over = time_requests(server, protocols, n_rounds)
        _, over["session"] = measure_session(server, n_rounds, is_speaking=False)
    times = {"round_trip_ms": round_trip, "behind_unet_ms": behind, "over_ms": over}
    return {"unet_ms": round(float(np.median(server.network_ms)), 2)} | {
        key: {name: round(float(np.median(values)), 3) for name, values in by_name.items()}
        for key, by_name in times.items()
    }


def time_requests(
    server: ServerProcess, protocols: dict[str, RequestFrame], n_rounds: int
) -> tuple[dict[str, list[float]], ...]:
    """Return by protocol, in milliseconds: the round trips, and the round trips minus the engine's time."""
    round_trip: dict[str, list[float]] = {name: [] for name in protocols}
    over: dict[str, list[float]] = {name: [] for name in protocols}
    for i in range(N_WARMUP + n_rounds):
        for name, request_frame in protocols.items():
            server.take_engine_ms()
            started = time.perf_counter()
            request_frame(i % N_FRAMES)
            elapsed_ms = (time.perf_counter() - started) * 1000
            (engine_ms,) = server.take_engine_ms()
            if i >= N_WARMUP:
                round_trip[name].append(elapsed_ms)
                over[name].append(elapsed_ms - engine_ms)
    return round_trip, over


def open_protocols(server: ServerProcess, stack: ExitStack) -> dict[str, RequestFrame]:
    """Open the connections, and return a function for each protocol."""
    socket = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None, compression=None))
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    stub = pb2_grpc.OptimizedLipSyncServiceStub(channel)
    name = NAME.encode()

    def receive(kind: type) -> Any:
        while not isinstance(message := socket.recv(), kind) or (kind is str and '"stats"' in message[:20]):
            pass
        return message

    def request_json(i: int) -> object:
        socket.send(json.dumps({"model_name": NAME, "frame_id": i}))
        return base64.b64decode(json.loads(receive(str))["prediction_data"])

    def request_binary(i: int) -> object:
        socket.send(struct.pack("<I", len(name)) + name + struct.pack("<II", i, 0))
        return receive(bytes)

    def request_unary(i: int) -> object:
        return stub.GenerateInference(pb2.OptimizedInferenceRequest(model_name=NAME, frame_id=i)).prediction_data

    return {
        "json": request_json,
        "binary": request_binary,
        "grpc unary": request_unary,
        "grpc stream": open_stream(stub, stack),
    }


def open_stream(stub: Any, stack: ExitStack) -> RequestFrame:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    responses = stub.StreamInference(iter(requests.get, None))
    stack.callback(requests.put, None)

    def request_frame(i: int) -> object:
        requests.put(pb2.OptimizedInferenceRequest(model_name=NAME, frame_id=i))
        return next(responses).prediction_data

    return request_frame


def measure_session(server: ServerProcess, n_rounds: int, *, is_speaking: bool) -> tuple[list[float], list[float]]:
    """Return the milliseconds between frames of an unpaced session, and these minus the engine's time."""
    n = N_WARMUP + n_rounds
    frames: list[FrameMessage] = []
    arrivals_ms: list[float] = []
    server.take_engine_ms()  # the session renders its first frame as soon as it is connected
    with connect(f"ws://127.0.0.1:{server.port}/v1/avatars/{NAME}/session", proxy=None, compression=None) as socket:
        if is_speaking:
            socket.send(make_noise((n + 1) / FPS))
            socket.send('{"type": "flush"}')
        while sum(frame.is_speaking == is_speaking for frame in frames) <= n:
            message = socket.recv()
            if isinstance(message, bytes):
                frames.append(unpack_frame(message))
                arrivals_ms.append(time.perf_counter() * 1000)
    engine_ms = server.take_engine_ms()
    wait_until_idle(server)
    first = next(i for i, frame in enumerate(frames) if frame.is_speaking == is_speaking) + N_WARMUP
    intervals_ms = np.diff(arrivals_ms)[first : first + n_rounds - 1]
    # The engine generates the later of two consecutive frames between their arrivals.
    generation_ms = np.array(engine_ms)[[frame.frame for frame in frames[first + 1 : first + n_rounds]]]
    return list(intervals_ms), list(intervals_ms - generation_ms)


def wait_until_idle(server: ServerProcess) -> None:
    """Wait until the server no longer renders frames for a session whose connection has been closed."""
    time.sleep(IDLE_POLL_S)
    while server.take_engine_ms():
        time.sleep(IDLE_POLL_S)


def make_noise(seconds: float) -> bytes:
    """Return 16 kHz audio that is never silent, as little-endian int16."""
    rng = np.random.default_rng(2)
    samples: bytes = (rng.standard_normal(round(seconds * RATE)) * 4000).astype("<i2").tobytes()
    return samples


def measure_clients(folder: Path, n_clients: int) -> float:
    """Return the frames of speech per second of all clients together: 25 for each is real time."""
    with running_server(folder, is_paced=True) as server:
        return round(asyncio.run(run_clients(server.port, n_clients)), 1)


async def run_clients(port: int, n_clients: int) -> float:
    # The first second is left out: a session then catches up with the delay of its start.
    arrivals = [times[FPS:] for times in await asyncio.gather(*(run_client(port) for _ in range(n_clients)))]
    n_frames = sum(len(times) for times in arrivals)
    return n_frames / (max(times[-1] for times in arrivals) - min(times[0] for times in arrivals) + 1 / FPS)


async def run_client(port: int) -> list[float]:
    """Send audio to a session; return the arrival time of each frame of speech, in seconds."""
    times: list[float] = []
    url = f"ws://127.0.0.1:{port}/v1/avatars/{NAME}/session"
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        await socket.send(make_noise(SPEECH_S))
        await socket.send('{"type": "flush"}')
        with contextlib.suppress(StopAsyncIteration):
            while True:
                message = await socket.recv()
                if isinstance(message, str):
                    if json.loads(message)["type"] == "speech_finished":
                        return times
                elif unpack_frame(message).is_speaking:
                    times.append(time.perf_counter())
    return times


if __name__ == "__main__":
    main()
