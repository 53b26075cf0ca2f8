"""The server that `bench.live` talks to: the doors of live avatars alone, each of them with a stopwatch inside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import uvicorn
import uvloop
from starlette.applications import Starlette

from container import rpc
from container.live.frame_clock import FrameClock
from container.live.legacy import server as legacy
from container.live.legacy.single_frames import NumberedFrame, render_frame, render_frame_with_audio
from container.live.session import LiveSession
from container.live.transport import WEBSOCKET_CONFIG, BackpressureProtocol
from container.rpc import RpcServer
from container.stream import AvatarServer
from inference.avatar import AvatarPackage
from inference.settings import Settings

NAME = "measured"
P = ParamSpec("P")
T = TypeVar("T")


class Unpaced(FrameClock):
    """Frames are always due."""

    async def wait_until_due(self, _frame: int) -> None:
        await asyncio.sleep(0)


class Stopwatch:
    """What the engine took for each frame: the protocols' work is what is left of a round trip."""

    def __init__(self) -> None:
        self.taken_ms: list[float] = []
        self.is_instant = False  # whether pictures that were made before are given again

    def around(self, function: Callable[P, T]) -> Callable[P, T]:
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.taken_ms.append((time.perf_counter() - started) * 1000)

        return timed

    def around_stills(self, function: Callable[..., NumberedFrame]) -> Callable[..., NumberedFrame]:
        made: dict[int, NumberedFrame] = {}

        def remember(package: AvatarPackage, frame: int, *args: Any, **kwargs: Any) -> NumberedFrame:
            if not self.is_instant or frame not in made:
                made[frame] = function(package, frame, *args, **kwargs)
            return made[frame]

        return self.around(remember)


def serve(pipe: Connection, folder: Path, is_paced: bool) -> None:
    """Serve the package in `folder / NAME` until told to stop; to be the target of a process.

    Sends ("ready", HTTP port, gRPC port, milliseconds of the network alone); answers "taken" with the stopwatch's times
    since the last question. After "instant" no frame that was asked for before is made again.
    """
    uvloop.run(run(pipe, folder, is_paced))  # as uvicorn does


async def run(pipe: Connection, folder: Path, is_paced: bool) -> None:
    watch = Stopwatch()
    setattr(legacy, "render_frame_with_audio", watch.around_stills(render_frame_with_audio))  # noqa: B010 - where it is called from
    setattr(rpc, "render_frame", watch.around_stills(render_frame))  # noqa: B010
    if not is_paced:
        # One core for all of it: idle threads of the network's spin for a while, and the client is to have its own.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    LiveSession.render_next_frame = watch.around(LiveSession.render_next_frame)  # type: ignore[method-assign]
    settings = Settings.from_env().asked(avatars=folder)
    live = AvatarServer(settings, make_clock=FrameClock if is_paced else Unpaced)
    config = uvicorn.Config(
        Starlette(routes=live.routes()),
        port=0,
        log_config=None,
        ws=BackpressureProtocol,
        lifespan="off",
        **WEBSOCKET_CONFIG,
    )
    http = uvicorn.Server(config)
    grpc = RpcServer(live.avatars, live.latencies, settings, 0, lambda: True)
    async with live.running():
        network_ms = await time_network(live)
        serving = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        pipe.send(("ready", http.servers[0].sockets[0].getsockname()[1], await grpc.start(), network_ms))
        while (asked := await asyncio.to_thread(pipe.recv)) != "stop":
            watch.is_instant = watch.is_instant or asked == "instant"
            pipe.send(watch.taken_ms[:])
            watch.taken_ms.clear()
        await grpc.stop()
        http.should_exit = True
        await serving


async def time_network(live: AvatarServer, n_calls: int = 30) -> list[float]:
    """The U-Net alone, with nothing around it."""
    import numpy as np

    async with live.avatars.acquire(NAME) as avatar:
        heard = np.zeros(avatar.audio_shape, np.float32)
        watch = Stopwatch()
        paint: Callable[..., Any] = watch.around(avatar.generate)
        for i in range(n_calls + 5):
            await live.avatars.run_in_thread(paint, i % avatar.n_frames, heard)
        return watch.taken_ms[5:]
