"""Runs the application: port, signals, draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import uvicorn
from starlette.types import ASGIApp

from container.app import Server, make_app
from container.aws_routes import aws_routes
from container.live.legacy.routes import legacy_app
from container.live.transport import WEBSOCKET_CONFIG, LineProtocol
from container.logs import set_up_logs
from container.tls import read_certificate
from inference.settings import Settings

LOG = logging.getLogger("viseme.server")
DRAIN_S = 25.0  # SageMaker kills 30 s after SIGTERM
ABORT_S = 1.0  # for the answers to requests that were given up
# Longer than load balancers and clients keep an idle connection (60 s): were it shorter, they would send a
# request into one that is just being closed, and take it for our failure.
KEEP_ALIVE_S = 75


class SideServer(Protocol):
    """A server on a port of its own, over the same engines and in the same event loop."""

    name: str  # of its port, in the log

    async def start(self) -> int:
        """Open its port and return that. Raises: OSError where it cannot be had."""

    async def stop(self) -> None:
        """Close it; what it still does is given up."""


class LegacyPort:
    """A port of older clients."""

    def __init__(self, settings: Settings, server: Server, place: int, port: int) -> None:
        """place: among the settings' `legacy_ports`."""
        self.name = f"legacy_port_{place}"
        self._address = settings.host, port
        self._sockets: list[socket.socket] = []
        config = http_config(legacy_app(server.live, place), settings, lifespan="off")
        config.load()
        self._http = uvicorn.Server(config)
        self._http.lifespan = config.lifespan_class(config)

    async def start(self) -> int:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._sockets = [socket.create_server(self._address, family=family)]
        await self._http.startup(self._sockets)
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._http.started:
            await self._http.shutdown(self._sockets)


def side_servers(settings: Settings, server: Server) -> list[SideServer]:
    """Those that were asked for."""
    ports = enumerate(settings.live_ports.legacy)
    sides: list[SideServer] = [LegacyPort(settings, server, place, port) for place, port in ports if port]
    if settings.live_ports.grpc:
        from container.rpc import RpcServer

        live, port = server.live, settings.live_ports.grpc
        rpc = RpcServer(live.avatars, live.tallies, settings, port, lambda: server.is_ready, server.metrics.count)
        sides.append(rpc)
    return sides


class DrainingServer(uvicorn.Server):
    """uvicorn, but on a signal the port stays open: /ping says 503 while what runs is finished.

    uvicorn itself would close its listener at once, and a load balancer would see refused connections.
    """

    def __init__(self, config: uvicorn.Config, server: Server, sides: Sequence[SideServer] = ()) -> None:
        super().__init__(config)
        self._server = server
        self._sides = sides
        self._drain: asyncio.Task[None] | None = None
        self.failed = False  # to open every port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, open the port, and say so in one line with what was measured."""
        await super().startup(sockets)
        ports = {"port": self.servers[0].sockets[0].getsockname()[1]}  # the system chose it where the setting is 0
        for side in self._sides:
            try:
                ports[side.name] = await side.start()
            except OSError as err:
                LOG.critical("a port cannot be had", extra={"name_of_port": side.name, "reason": str(err)})
                self.should_exit, self.failed = True, True
                return
        LOG.info("viseme is ready", extra=self._server.pool.health | {"host": self.config.host} | ports)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every port."""
        for side in self._sides:
            await side.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours instead of uvicorn's."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._on_signal)
        try:
            yield
        finally:
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(one)

    def _on_signal(self) -> None:
        if self._drain is not None:  # asked twice: at once
            self._server.pool.abort()
            return
        LOG.info("draining", extra={"held": self._server.n_held})
        self._server.drain()
        self._drain = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            if not await self._wait_until_free(DRAIN_S):
                LOG.error("requests did not finish in time and are given up", extra={"held": self._server.n_held})
                self._server.pool.abort()
                await self._wait_until_free(ABORT_S)
        finally:
            self.should_exit = True

    async def _wait_until_free(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._server.n_held:
                    await asyncio.sleep(0.05)
        return self._server.n_held == 0


def run_server(settings: Settings, *, with_aws_routes: bool = False) -> int:
    """Serve until told to stop. Returns the exit code: 0, or 1 where the models could not be loaded.

    Raises: InvalidRequest for a certificate that is none.
    """
    set_up_logs()
    read_certificate(settings)
    if with_aws_routes:  # we play SageMaker's part then, its asynchronous calls included
        settings = settings.model_copy(update={"on_sagemaker": True})
    server = Server(settings)
    app = make_app(server, aws_routes if with_aws_routes else None)
    config = http_config(app, settings)
    draining = DrainingServer(config, server, side_servers(settings, server))
    try:
        draining.run()
    except SystemExit:  # uvicorn's, where the start failed; the log has said why
        return 1
    return 0 if draining.started and not draining.failed else 1


def http_config(app: ASGIApp, settings: Settings, lifespan: Literal["on", "off"] = "on") -> uvicorn.Config:
    """How every port speaks HTTP and WebSocket."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,  # what runs was drained before
        lifespan=lifespan,
        ws=LineProtocol,
        **WEBSOCKET_CONFIG,
        h11_max_incomplete_event_size=64 << 10,
    )
