"""A server of every port's protocol, below an application that counts what it receives."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from container.http.connections import ConnectionQuota
from container.server import http_config
from inference.settings import Settings
from support.waiting import PATIENCE_S, wait_until


@dataclass
class EchoApp:
    """Answers /short at once, /long with more than the kernel buffers, /late when `may_answer` is set.

    Others get the length of their body.
    """

    paths: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # of each piece of a body that was received at once
    may_answer: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "welcome"})
            await receive()
            await send({"type": "websocket.send", "text": "goodbye"})
            return
        self.paths.append(scope["path"])
        body = {"/short": b"short", "/long": bytes(64 << 20)}.get(scope["path"])
        while scope["path"] == "/late" and not self.may_answer.is_set():
            await asyncio.sleep(0.01)
        if body is None:
            body = str(await self.receive_all(receive)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    async def receive_all(self, receive: Any) -> int:
        n_bytes = 0
        while (message := await receive())["type"] == "http.request":
            n_bytes += len(message["body"])
            self.sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        return n_bytes


@dataclass
class RunningEcho:
    app: EchoApp
    http: uvicorn.Server

    def connect(self, sent: bytes = b"") -> socket.socket:
        address = self.http.servers[0].sockets[0].getsockname()
        one = socket.create_connection(address, timeout=PATIENCE_S)
        one.sendall(sent)
        return one

    @property
    def n_connections(self) -> int:
        return len(self.http.server_state.connections)


@contextmanager
def run_echo(settings: Settings, quota: ConnectionQuota | None = None) -> Iterator[RunningEcho]:
    """Serve in a thread inside of the block."""
    echo = EchoApp()
    http = uvicorn.Server(http_config(echo, settings, quota, lifespan="off"))  # type: ignore[arg-type]
    thread = threading.Thread(target=http.run)
    thread.start()
    try:
        wait_until(lambda: http.started or not thread.is_alive())
        yield RunningEcho(echo, http)
    finally:
        echo.may_answer.set()
        http.should_exit = True
        thread.join(PATIENCE_S)
