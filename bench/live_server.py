"""The server that `bench.live` measures: the live-avatar endpoints only, with timers around the engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import uvicorn
import uvloop
from starlette.applications import Starlette

from container import rpc
from container.live.frame_clock import FrameClock
from container.live.legacy import server as legacy
from container.live.legacy.single_frames import NumberedFrame, render_frame, render_frame_with_audio
from container.live.session import LiveSession
from container.rpc import RpcServer
from container.server import http_config
from container.stream import AvatarServer
from inference.avatar import AvatarPackage
from inference.avatar.compose import cut_face
from inference.media import Frame
from inference.settings import Settings

NAME = "measured"
P = ParamSpec("P")
T = TypeVar("T")


class UnpacedClock(FrameClock):
    """A clock on which every frame is due at once."""

    async def wait_until_due(self, frame: int, lead: int = 0) -> None:  # noqa: ARG002
        await asyncio.sleep(0)


class CallTimer:
    """Records the duration of each call of the engine, so that the rest of a round trip is the protocol's."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self.reuses_frames = False  # return frames that were generated before

    def wrap(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function with its calls timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.times_ms.append((time.perf_counter() - started) * 1000)

        return timed

    def wrap_frame_function(self, function: Callable[..., NumberedFrame]) -> Callable[..., NumberedFrame]:
        """Return the function with its calls timed, and its results reused if `reuses_frames` is set."""
        cache: dict[int, NumberedFrame] = {}

        def cached(package: AvatarPackage, frame: int, *args: Any, **kwargs: Any) -> NumberedFrame:
            if not self.reuses_frames or frame not in cache:
                cache[frame] = function(package, frame, *args, **kwargs)
            return cache[frame]

        return self.wrap(cached)


def serve(pipe: Connection, folder: Path, is_paced: bool, has_unet: bool = True) -> None:
    """Serve the package in `folder / NAME` until "stop" arrives. Target of a process.

    has_unet: whether frames of speech are generated; otherwise they show the face as it is in the package.

    Sends ("ready", HTTP port, gRPC port, milliseconds of the network alone). Replies to each command with the times of
    the engine's calls since the last one. After "reuse_frames" no frame is generated twice.
    """
    if not has_unet:
        AvatarPackage.generate = show_face  # type: ignore[method-assign,assignment]
    uvloop.run(run(pipe, folder, is_paced))  # as uvicorn does


async def run(pipe: Connection, folder: Path, is_paced: bool) -> None:
    timer = CallTimer()
    # Replaced in the modules that call them.
    setattr(legacy, "render_frame_with_audio", timer.wrap_frame_function(render_frame_with_audio))  # noqa: B010
    setattr(rpc, "render_frame", timer.wrap_frame_function(render_frame))  # noqa: B010
    if not is_paced:
        # The server gets one core: idle threads of the network spin for a while and would disturb the client.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    LiveSession.render_next_frame = timer.wrap(LiveSession.render_next_frame)  # type: ignore[method-assign]
    settings = Settings.from_env().with_overrides(avatars=folder, port=0)
    live = AvatarServer(settings, make_clock=FrameClock if is_paced else UnpacedClock)
    http = uvicorn.Server(http_config(Starlette(routes=live.routes()), settings, lifespan="off"))
    grpc = RpcServer(live.avatars, live.latencies, settings, 0, lambda: True)
    async with live.running():
        network_ms = await time_network(live)
        serving = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        pipe.send(("ready", http.servers[0].sockets[0].getsockname()[1], await grpc.start(), network_ms))
        while (command := await asyncio.to_thread(pipe.recv)) != "stop":
            timer.reuses_frames = timer.reuses_frames or command == "reuse_frames"
            pipe.send(timer.times_ms[:])
            timer.times_ms.clear()
        await grpc.stop()
        http.should_exit = True
        await serving


def show_face(package: AvatarPackage, i: int, _features: object) -> Frame:
    """Return the face of frame i as it is in the package: in the place of `AvatarPackage.generate`."""
    return np.ascontiguousarray(cut_face(package.crop(i)))


async def time_network(live: AvatarServer, n_calls: int = 30, n_warmup: int = 5) -> list[float]:
    """Measure the U-Net alone; return the milliseconds of each call."""
    async with live.avatars.acquire(NAME) as avatar:
        audio_features = np.zeros(avatar.audio_shape, np.float32)
        timer = CallTimer()
        generate: Callable[..., Any] = timer.wrap(avatar.generate)
        for i in range(n_calls + n_warmup):
            await live.avatars.run_in_thread(generate, i % avatar.n_frames, audio_features)
        return timer.times_ms[n_warmup:]
