"""The application with avatars on a real port of this process, and with a worker that loads no model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from container.app import Server, make_app
from container.live import avatar_cache as avatars_module
from container.server import http_config
from container.worker import process as process_module
from inference.avatar.catalogue import list_user_avatars
from inference.settings import Settings
from support.fake_worker import run_fake
from support.waiting import PATIENCE_S, wait_until


class LiveApp:
    """A running application. Read `server` directly; change it through `call`."""

    def __init__(self, server: Server, http: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self._http, self._loop = server, http, loop

    @property
    def port(self) -> int:
        found: int = self._http.servers[0].sockets[0].getsockname()[1]
        return found

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ws(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def call(self, function: Callable[[], Any]) -> None:
        """Call a function in the server's event loop."""
        self._loop.call_soon_threadsafe(function)


@contextmanager
def live_app(server: Server, *, with_aws_routes: bool = False) -> Iterator[LiveApp]:
    """Serve in a thread inside of the block, without the starter avatar, which each server would create again."""
    kept, process_module.run_worker = process_module.run_worker, run_fake
    listed, avatars_module.find_packages = avatars_module.find_packages, list_user_avatars
    config = http_config(
        make_app(server, with_aws_routes=with_aws_routes), server.settings.model_copy(update={"port": 0})
    )
    http = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await http.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        wait_until(lambda: http.started or not thread.is_alive())
        yield LiveApp(server, http, loops[0])
    finally:
        http.should_exit = True
        thread.join(PATIENCE_S)
        process_module.run_worker, avatars_module.find_packages = kept, listed


def make_settings(folder: Any, **more: Any) -> Settings:
    return Settings(data_dir=folder, device="cpu", precision="f32", **more)
