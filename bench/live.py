"""Live avatars by protocol: `python -m bench.live [--avatar DIR]`.

A round trip per frame in every protocol, in turns and with the server on one core, beside what the engine took for the
same frame and what the U-Net takes alone; then how many frames a second 1, 2 and 4 clients get. Without an avatar of
yours the starter is measured, or where there is none networks of its size with random weights: what they paint means
nothing, what they cost is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
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

from bench.live_server import NAME, serve
from container.live.frame_messages import FrameMessage, unpack_frame
from container.protos import optimized_lipsyncsrv_pb2 as pb2
from container.protos import optimized_lipsyncsrv_pb2_grpc as pb2_grpc
from inference.avatar import list_avatars
from inference.avatar.manifest import IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.write import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.faces import FaceBox
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.settings import Settings
from inference.speaker import SyntheticClip, SyntheticClipOptions

MOST_OVER_MS = 0.5  # per frame, above the engine's own time
SETTLED, N_ROUNDS = 10, 100  # calls of each protocol left out, and measured
N_CLIENTS = (1, 2, 4)
SPOKEN_S = 4.0  # by each of them
RATE, FPS = 16_000, 25
WIDTHS, N_AUDIO = (8, 16, 32, 64, 128), 16  # of the starter
SIDE, BOX, N_FRAMES = 512, 200, 50
TEXT, SEED = "NOW PLEASE", 3
SPAWN = multiprocessing.get_context("spawn")

Ask = Callable[[int], object]


def main() -> None:
    """Print one JSON object; exit 1 where a protocol takes more than its share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avatar", type=Path, help="the folder of a package")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        find_avatar(Path(folder), asked.avatar)
        found = measure_protocols(Path(folder), asked.rounds)
        found |= {"fps": {f"{n} clients": measure_clients(Path(folder), n) for n in N_CLIENTS}}
    print(json.dumps(found, indent=1))
    raise SystemExit(max(found["over_ms"].values()) > MOST_OVER_MS)


def find_avatar(folder: Path, given: Path | None) -> None:
    """Have `folder / NAME` be the package that is measured."""
    package = given or list_avatars(Settings.from_env()).get("starter")
    if package is not None:
        (folder / NAME).symlink_to(package.absolute())
    else:
        write_package(folder / NAME)


def write_package(folder: Path) -> None:
    """Pictures of the synthetic speaker, and networks of the starter's size with random weights."""
    torch.manual_seed(1)
    film = SyntheticClip(TEXT, SEED, SyntheticClipOptions(width=SIDE, height=SIDE, length_s=N_FRAMES / FPS + 1))
    frames = [shot.frame for shot in islice(film.frames(), N_FRAMES)]
    left = (SIDE - BOX) // 2
    box = FaceBox(left, left, left + BOX, left + BOX)
    with atomic_package_folder(folder) as part:
        written = write_frames(part, (CroppedFrame(frame, box) for frame in frames), NAME)
        ear = AudioVisualEncoder((16, 32, 64, 128, 256)).eval()
        write_networks(part, AvatarUNet("ave", WIDTHS, N_AUDIO).eval(), ear)
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


class Served:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *, is_paced: bool) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=serve, args=(theirs, folder, is_paced))
        self._process.start()
        theirs.close()
        _, self.port, self.grpc_port, self.network_ms = self._pipe.recv()

    def taken_ms(self, question: str = "taken") -> list[float]:
        """What the engine took for each frame since the last question."""
        self._pipe.send(question)
        taken: list[float] = self._pipe.recv()
        return taken

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join()


@contextmanager
def served(folder: Path, *, is_paced: bool) -> Iterator[Served]:
    one = Served(folder, is_paced=is_paced)
    try:
        yield one
    finally:
        one.stop()


def measure_protocols(folder: Path, n_rounds: int) -> dict[str, Any]:
    """Medians in milliseconds: of the U-Net alone, of round trips, of what of them is not the engine's.

    behind_unet: with the engine at work in them, which leaves nothing of ours in the processor's caches. over: with
    pictures that were made before.
    """
    with served(folder, is_paced=False) as server, ExitStack() as stack:
        asks = open_protocols(server, stack)
        whole, behind = ask_all(server, asks, n_rounds)
        whole["session"], behind["session"] = measure_session(server, n_rounds, is_speaking=True)
        server.taken_ms("instant")
        _, over = ask_all(server, asks, n_rounds)
        _, over["session"] = measure_session(server, n_rounds, is_speaking=False)
    found = {"round_trip_ms": whole, "behind_unet_ms": behind, "over_ms": over}
    return {"unet_ms": round(float(np.median(server.network_ms)), 2)} | {
        key: {name: round(float(np.median(values)), 3) for name, values in by_name.items()}
        for key, by_name in found.items()
    }


def ask_all(server: Served, asks: dict[str, Ask], n_rounds: int) -> tuple[dict[str, list[float]], ...]:
    """Of each protocol the round trips in milliseconds, and what of each was not the engine's."""
    whole: dict[str, list[float]] = {name: [] for name in asks}
    over: dict[str, list[float]] = {name: [] for name in asks}
    for i in range(SETTLED + n_rounds):
        for name, ask in asks.items():
            server.taken_ms()
            started = time.perf_counter()
            ask(i % N_FRAMES)
            took = (time.perf_counter() - started) * 1000
            (engine,) = server.taken_ms()
            if i >= SETTLED:
                whole[name].append(took)
                over[name].append(took - engine)
    return whole, over


def open_protocols(server: Served, stack: ExitStack) -> dict[str, Ask]:
    """What asks for one frame and takes its picture, by protocol."""
    socket = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None, compression=None))
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    stub = pb2_grpc.OptimizedLipSyncServiceStub(channel)
    name = NAME.encode()

    def receive(kind: type) -> Any:
        while not isinstance(answer := socket.recv(), kind) or (kind is str and '"stats"' in answer[:20]):
            pass
        return answer

    def ask_json(i: int) -> object:
        socket.send(json.dumps({"model_name": NAME, "frame_id": i}))
        return base64.b64decode(json.loads(receive(str))["prediction_data"])

    def ask_binary(i: int) -> object:
        socket.send(struct.pack("<I", len(name)) + name + struct.pack("<II", i, 0))
        return receive(bytes)

    def ask_unary(i: int) -> object:
        return stub.GenerateInference(pb2.OptimizedInferenceRequest(model_name=NAME, frame_id=i)).prediction_data

    ask_stream = open_stream(stub, stack)
    return {"json": ask_json, "binary": ask_binary, "grpc unary": ask_unary, "grpc stream": ask_stream}


def open_stream(stub: Any, stack: ExitStack) -> Ask:
    import queue

    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = stub.StreamInference(iter(requests.get, None))
    stack.callback(requests.put, None)

    def ask(i: int) -> object:
        requests.put(pb2.OptimizedInferenceRequest(model_name=NAME, frame_id=i))
        return next(answers).prediction_data

    return ask


def measure_session(server: Served, n_rounds: int, *, is_speaking: bool) -> tuple[list[float], list[float]]:
    """From frame to frame where nothing paces them, and what of that is not the engine's."""
    n = SETTLED + n_rounds
    frames: list[FrameMessage] = []
    arrived: list[float] = []
    with connect(f"ws://127.0.0.1:{server.port}/v1/avatars/{NAME}/session", proxy=None, compression=None) as socket:
        server.taken_ms()
        if is_speaking:
            socket.send(noise((n + 1) / FPS))
            socket.send('{"type": "flush"}')
        while sum(frame.is_speaking == is_speaking for frame in frames) <= n:
            message = socket.recv()
            if isinstance(message, bytes):
                frames.append(unpack_frame(message))
                arrived.append(time.perf_counter() * 1000)
    taken = server.taken_ms()
    first = next(i for i, frame in enumerate(frames) if frame.is_speaking == is_speaking) + SETTLED
    between = np.diff(arrived)[first : first + n_rounds - 1]
    # Between the arrivals of two frames that follow one another, the second is made.
    made = np.array(taken)[[frame.frame for frame in frames[first + 1 : first + n_rounds]]]
    return list(between), list(between - made)


def noise(seconds: float) -> bytes:
    """Sound that is never silent: 16 kHz."""
    rng = np.random.default_rng(2)
    sound: bytes = (rng.standard_normal(round(seconds * RATE)) * 4000).astype("<i2").tobytes()
    return sound


def measure_clients(folder: Path, n_clients: int) -> float:
    """Frames of speech a second, all clients together: 25 for each is real time."""
    with served(folder, is_paced=True) as server:
        return round(asyncio.run(speak_all(server.port, n_clients)), 1)


async def speak_all(port: int, n_clients: int) -> float:
    # In the first second a session catches up with what its beginning took.
    spoken = [times[FPS:] for times in await asyncio.gather(*(speak(port) for _ in range(n_clients)))]
    n_frames = sum(len(times) for times in spoken)
    return n_frames / (max(times[-1] for times in spoken) - min(times[0] for times in spoken) + 1 / FPS)


async def speak(port: int) -> list[float]:
    """When each frame of speech came."""
    times: list[float] = []
    url = f"ws://127.0.0.1:{port}/v1/avatars/{NAME}/session"
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        await socket.send(noise(SPOKEN_S))
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
